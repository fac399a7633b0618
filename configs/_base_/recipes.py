"""How a trained CMT is fine-tuned: what is frozen, and how fast the rest learns.

A recipe has two parts: `model`, to be merged into the model, and `rates`, relative to the base
rate. Every part of the model is named in both, so that one recipe can be laid over another.

A copy made for speed computes what is frozen, with the same outputs. In the model's config,
`fast_path=dict(dtype='bfloat16')` rounds and is faster still, and `fast_path=None` does without.
"""

frozen_part = dict(frozen=True, norm_eval=True)
trained_part = dict(frozen=False, norm_eval=True)

decoder_rates = dict(
    transformer=dict(lr_mult=0.5),
    bev_embedding=dict(lr_mult=0.5),
    rv_embedding=dict(lr_mult=0.5),
    shared_conv=dict(lr_mult=0.5),
    reference_points=dict(lr_mult=0.3),
    task_heads=dict(lr_mult=0.8),
)

# A: the backbones frozen, the necks almost.
recipe_a = dict(
    model=dict(
        fast_path={},
        img_backbone=frozen_part,
        img_neck=trained_part,
        pts_voxel_encoder=dict(frozen=True),
        pts_middle_encoder=frozen_part,
        pts_backbone=frozen_part,
        pts_neck=trained_part,
    ),
    rates=dict(img_neck=dict(lr_mult=0.05), pts_neck=dict(lr_mult=0.05), **decoder_rates),
)

# B: the same with necks that learn faster.
recipe_b = dict(
    model=recipe_a['model'],
    rates=dict(img_neck=dict(lr_mult=0.1), pts_neck=dict(lr_mult=0.1), **decoder_rates),
)

# C: nothing frozen, the backbones at a low rate.
recipe_c = dict(
    model=dict(
        fast_path={},
        img_backbone=trained_part,
        img_neck=trained_part,
        pts_voxel_encoder=dict(frozen=False),
        pts_middle_encoder=trained_part,
        pts_backbone=trained_part,
        pts_neck=trained_part,
    ),
    rates=dict(
        img_backbone=dict(lr_mult=0.01),
        pts_voxel_encoder=dict(lr_mult=0.01),
        pts_middle_encoder=dict(lr_mult=0.01),
        pts_backbone=dict(lr_mult=0.01),
        **recipe_b['rates'],
    ),
)

# D: features fixed, backbones and necks frozen.
recipe_d = dict(
    model=dict(
        fast_path={},
        img_backbone=frozen_part,
        img_neck=frozen_part,
        pts_voxel_encoder=dict(frozen=True),
        pts_middle_encoder=frozen_part,
        pts_backbone=frozen_part,
        pts_neck=frozen_part,
    ),
    rates=decoder_rates,
)

finetune_optimizer = dict(type='AdamW', lr=1.4e-4, weight_decay=0.01)

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
