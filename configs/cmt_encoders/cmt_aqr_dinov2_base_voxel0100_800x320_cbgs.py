"""A router on a CMT with a frozen DINOv2 ViT-B.

Give the trained CMT with DINOv2 as `load_from`.
"""

_base_ = ['./cmt_dinov2_base_voxel0100_800x320_cbgs.py', '../_base_/aqr.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
