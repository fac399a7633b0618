"""A router on a frozen CMT with ResNet-50 at 800 x 320, trained under sensor failures.

The router learns from the boxes of damaged samples alone. Give the trained CMT as `load_from`; the
run refuses to start from random frozen weights.
"""

_base_ = ['../cmt/cmt_voxel0100_r50_800x320_cbgs_failures_finetune.py', '../_base_/aqr.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
