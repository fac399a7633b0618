"""Trains the tiny ViT of SigLIP's architecture on images and phrases."""

_base_ = './pretrain_dinov2.py'

custom_imports = dict(
    imports=['projects.cmt_aqr', 'benchmarks.encoders.image_text'], allow_failed_imports=False
)
encoder = dict(_base_.tiny_siglip, pretrained=None, layers=[-1], frozen=False)
model = dict(type='ImageTextPretrainer', img_backbone=dict(_delete_=True, **encoder))
