"""CMT with a frozen DINOv2 ViT-B in place of ResNet-50; projector and decoder train.

The second of three stages. Give the end of the first, `..._projector.py`, as `load_from`.
"""

_base_ = ['../cmt/cmt_voxel0100_r50_800x320_cbgs_finetune.py', '../_base_/encoders.py']

model = dict(
    data_preprocessor=_base_.images,
    img_backbone=dict(_delete_=True, **_base_.dinov2_base),
    img_neck=dict(_delete_=True, type='MLPProjector', in_channels=768, out_channels=256),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.projector_rate))
