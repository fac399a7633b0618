"""The shipped tiny CMT fine-tuned under sensor failures by the recipe `frozen`, without a router.

The control of `configs/cmt_aqr/cmt_aqr_tiny_synthetic_failures*.py`, which differ from it by the
router alone. Scenes and images are not augmented, and failures come in two variants of each sample,
so that features of the frozen backbones can be cached.
"""

_base_ = [
    './cmt_tiny_synthetic_trainval.py',
    '../_base_/recipes.py',
    '../_base_/failures.py',
]

model = _base_.recipes.frozen.model

*load_inputs, fit_images, _ = _base_.test_pipeline
train_pipeline = [
    dict(_base_.draw_failures[0], variants=2),
    *_base_.draw_failures[1:],
    *load_inputs,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=_base_.point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    fit_images,
    _base_.pack_health,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 2
optim_wrapper = dict(optimizer=dict(lr=5e-4), **_base_.recipes.frozen.optim_wrapper)
param_scheduler = [
    dict(_base_.finetune_schedule[0], end=50),
    dict(_base_.finetune_schedule[1], T_max=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1)  # scored under failures later

load_from = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
