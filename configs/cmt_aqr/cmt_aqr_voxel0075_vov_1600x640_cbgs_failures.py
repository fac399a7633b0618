"""A router on a frozen CMT with VoVNet-99 at 1600 x 640, trained under sensor failures.

The router learns from the boxes of damaged samples alone. Give the trained CMT as `load_from`; the
run refuses to start from random frozen weights.
"""

_base_ = ['../cmt/cmt_voxel0075_vov_1600x640_cbgs_failures_finetune.py', '../_base_/aqr.py']

model = dict(pts_bbox_head=dict(aqr=dict(_base_.aqr, windows=dict(lidar=5, camera=15))))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
