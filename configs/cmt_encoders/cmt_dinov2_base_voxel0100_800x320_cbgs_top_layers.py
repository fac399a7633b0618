"""The third of three stages: the last two blocks of DINOv2 train as well, at a rate of 2e-6.

Give the end of the second, `cmt_dinov2_base_voxel0100_800x320_cbgs.py`, as `load_from`.
"""

_base_ = './cmt_dinov2_base_voxel0100_800x320_cbgs.py'

model = dict(img_backbone=dict(frozen=False, unfreeze_layers=[-2, -1], with_cp=True))
rate = 2e-6 / _base_.optim_wrapper.optimizer.lr
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=rate))))
max_epochs = 2
param_scheduler = [
    _base_.finetune_schedule[0],
    dict(_base_.finetune_schedule[1], T_max=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
