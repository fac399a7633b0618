"""A frozen ViT of SigLIP's architecture instead of DINOv2's."""

_base_ = './cmt_tiny_dinov2_synthetic.py'

model = dict(img_backbone=dict(_delete_=True, **_base_.tiny_siglip))
