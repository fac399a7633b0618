"""The first of three stages: the projector alone trains, on the frozen rest of a trained CMT.

Give that CMT as `load_from`; of its image branch nothing is used.
"""

_base_ = './cmt_dinov2_base_voxel0100_800x320_cbgs.py'

model = dict(pts_neck=dict(frozen=True), pts_bbox_head=dict(frozen=True))
max_epochs = 1
param_scheduler = [
    _base_.finetune_schedule[0],
    dict(_base_.finetune_schedule[1], T_max=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
