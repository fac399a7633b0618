"""Both ViTs side by side."""

_base_ = './cmt_tiny_dinov2_synthetic.py'

model = dict(
    img_backbone=dict(
        _delete_=True,
        type='DualEncoder',
        first=_base_.tiny_dinov2,
        second=_base_.tiny_siglip,
        frozen=True,
    ),
    img_neck=dict(in_channels=96 + 96),
)
