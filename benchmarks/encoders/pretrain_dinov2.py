"""Trains the tiny ViT of DINOv2's architecture on dense labels: class and depth of each token."""

_base_ = '../../configs/cmt_encoders/cmt_tiny_dinov2_synthetic.py'

encoder = dict(_base_.tiny_dinov2, pretrained=None, layers=[-1], frozen=False)
model = dict(
    _delete_=True,
    type='ImageTokenPretrainer',
    data_preprocessor=dict(_base_.model.data_preprocessor, voxel_layer=None),
    img_backbone=encoder,
    img_neck=dict(type='LinearProjector', in_channels=96, out_channels=96),
    num_classes=len(_base_.class_names),
    rays_per_side=3,
)
augment = dict(
    type='ResizeCropFlipImage',
    final_dim=_base_.image_size,
    zoom_lim=(0.96, 1.12),
    rand_flip=False,
)
train_pipeline = [
    *_base_.load_inputs[:1],
    *_base_.load_inputs[2:],
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    augment,
    _base_.pack_train,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 20
optim_wrapper = dict(optimizer=dict(lr=1e-3), paramwise_cfg=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(
        type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs, val_begin=max_epochs + 1)
val_dataloader = val_evaluator = val_cfg = None
load_from = None
