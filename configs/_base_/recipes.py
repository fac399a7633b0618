"""Recipes to fine-tune a trained CMT: what is frozen, and how fast the rest learns.

A recipe is a piece of config: the frozen parts of the model, and rates relative to the base rate
(those of frozen parts have no effect). All recipes name the same parts, so that one replaces
another, with or without a router. In a config that inherits from one that fine-tunes:

    model = _base_.recipes.low_rate.model
    optim_wrapper = _base_.recipes.low_rate.optim_wrapper

Frozen parts are computed by an optimised copy with the same outputs. In the model's config,
`fast_path=dict(dtype='bfloat16')` is faster still, but rounds; `fast_path=None` uses no copy.
"""

backbones = ['img_backbone', 'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone']
necks = ['img_neck', 'pts_neck']
rates = dict(
    img_backbone=0.01,
    pts_voxel_encoder=0.01,
    pts_middle_encoder=0.01,
    pts_backbone=0.01,
    img_neck=0.1,
    pts_neck=0.1,
    transformer=0.5,
    bev_embedding=0.5,
    rv_embedding=0.5,
    shared_conv=0.5,
    reference_points=0.3,
    task_heads=0.8,
)
# Frozen parts and rates of each recipe.
choices = dict(
    frozen=(backbones, dict(rates, img_neck=0.05, pts_neck=0.05)),
    fast_necks=(backbones, rates),
    low_rate=([], rates),
    fixed_features=([*backbones, *necks], rates),
    full_rate=([], dict.fromkeys(rates, 1.0)),  # to compare the others with
)
recipes = {
    name: dict(
        model=dict(
            fast_path={},
            **{part: dict(frozen=part in frozen, norm_eval=True) for part in [*backbones, *necks]},
        ),
        optim_wrapper=dict(
            paramwise_cfg=dict(
                custom_keys={part: dict(lr_mult=rate) for part, rate in part_rates.items()}
            )
        ),
    )
    for name, (frozen, part_rates) in choices.items()
}

finetune_epochs = 6
# Ends are ratios: an absolute one would bring all groups to the same rate.
finetune_schedule = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR',
        T_max=finetune_epochs,
        eta_min_ratio=1e-3,
        convert_to_iter_based=True,
    ),
]
