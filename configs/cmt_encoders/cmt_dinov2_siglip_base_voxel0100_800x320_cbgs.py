"""Frozen DINOv2 and SigLIP ViT-B side by side; projector and decoder train.

Train the projector alone first, as in `cmt_dinov2_base_voxel0100_800x320_cbgs_projector.py`.
"""

_base_ = './cmt_dinov2_base_voxel0100_800x320_cbgs.py'

model = dict(
    img_backbone=dict(
        _delete_=True,
        type='DualEncoder',
        first=_base_.dinov2_base,
        second=_base_.siglip_base,
        stride=16,
        frozen=True,
    ),
    img_neck=dict(type='FusedMLPProjector', in_channels=768 + 768),
)
