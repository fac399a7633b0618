"""CMT's 20 epochs: AdamW, and one cycle of rate and momentum.

The rate climbs to six times its start within 8 epochs and falls to a ten-thousandth of its start
in the other 12; momentum, AdamW's first beta, goes the other way, 0.9 to 0.805 and back. Every end
of a cosine is a ratio to the start: an absolute `eta_min` would take all parameter groups to one
rate and undo `lr_mult`.
"""

max_epochs = 20
epochs_up = 8
epochs_down = max_epochs - epochs_up

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='StrictOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1.4e-4, weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
    paramwise_cfg=dict(
        custom_keys={
            'img_backbone': dict(lr_mult=0.01, decay_mult=5),
            'img_neck': dict(lr_mult=0.1),
        }
    ),
)
up = dict(T_max=epochs_up, begin=0, end=epochs_up, by_epoch=True, convert_to_iter_based=True)
down = dict(
    T_max=epochs_down, begin=epochs_up, end=max_epochs, by_epoch=True, convert_to_iter_based=True
)
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min_ratio=6, **up),
    dict(type='CosineAnnealingLR', eta_min_ratio=1e-4, **down),
    dict(type='CosineAnnealingMomentum', eta_min_ratio=0.85 / 0.95, **up),
    dict(type='CosineAnnealingMomentum', eta_min_ratio=1, **down),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=max_epochs)
# 8 GPUs with 4 samples each.
auto_scale_lr = dict(enable=False, base_batch_size=32)
