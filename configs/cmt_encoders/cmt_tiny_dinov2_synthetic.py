"""A frozen ViT of DINOv2's architecture instead of the ResNet."""

_base_ = ['./cmt_tiny_resnet_synthetic.py', '../_base_/encoders_tiny.py']

model = dict(
    data_preprocessor=_base_.images,
    img_backbone=dict(_delete_=True, **_base_.tiny_dinov2),
    img_neck=dict(in_channels=96),
)
