"""CMT with ResNet-50 at 800 x 320 and a router, trained on frozen backbones.

Give the trained CMT as `load_from`; the run refuses to start from random frozen weights.
"""

_base_ = ['../cmt/cmt_voxel0100_r50_800x320_cbgs_finetune.py', '../_base_/aqr.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
