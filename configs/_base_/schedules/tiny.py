"""AdamW with warm-up and a cosine; all rates are relative, so that `lr_mult` stays in force."""

max_epochs = 11

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='StrictOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
    # The image branch is pre-trained, see cmt_tiny_image_pretrain.py.
    paramwise_cfg=dict(
        custom_keys=dict(img_backbone=dict(lr_mult=0.25), img_neck=dict(lr_mult=0.25))
    ),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        by_epoch=True,
        begin=0,
        T_max=max_epochs,
        eta_min_ratio=0.01,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
