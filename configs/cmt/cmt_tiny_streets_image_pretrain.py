"""Trains the image branch of the tiny CMT for the streets alone, on dense labels."""

_base_ = './cmt_tiny_streets.py'

model = dict(
    _delete_=True,
    type='ImageTokenPretrainer',
    data_preprocessor=_base_.model.data_preprocessor,
    img_backbone=_base_.model.img_backbone,
    img_neck=_base_.model.img_neck,
    num_classes=len(_base_.class_names),
    rays_per_side=3,
)
train_pipeline = [
    transform
    for transform in _base_.train_pipeline
    if transform.type
    in (
        'LoadPointsOfKeyframe',
        'LoadMultiViewImages',
        'ComputeLidar2Img',
        'LoadAnnotations3D',
        'ObjectNameFilter',
        'ResizeCropFlipImage',
        'Pack3DDetInputs',
    )
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 3
param_scheduler = [
    dict(_base_.param_scheduler[0], end=50),
    dict(_base_.param_scheduler[1], T_max=max_epochs),
]
optim_wrapper = dict(paramwise_cfg=None)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
val_dataloader = val_evaluator = val_cfg = None
load_from = None
