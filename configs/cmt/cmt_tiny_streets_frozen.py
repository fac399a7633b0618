"""Decoder and task heads of the tiny CMT for the streets, on cached features of its branches.

The branches are trained before, each alone: `cmt_tiny_streets_image_pretrain.py`, then
`cmt_tiny_streets_lidar_pretrain.py`. Frozen, they are computed once for each frame, so that a step
costs the decoder alone. `tools/train.py` needs `--allow-mismatch`, since the head of a
CenterPoint has other shapes.
"""

_base_ = ['./cmt_tiny_streets.py', '../_base_/frozen_detector.py']

model = {
    part: setting for part, setting in _base_.frozen_detector.items() if part != 'pts_bbox_head'
}
*load_inputs, fit_images, _ = _base_.test_pipeline
load_targets = [
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=_base_.point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
]
train_pipeline = [*load_inputs, fit_images, *load_targets, _base_.pack_train]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 8
optim_wrapper = dict(paramwise_cfg=None)
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=max_epochs)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)

feature_cache = dict(directory='work_dirs/features', max_gigabytes=20)
load_from = 'work_dirs/cmt_tiny_streets_lidar_pretrain/epoch_4.pth'
