"""The tiny CMT of one real keyframe with a router, trained on frozen backbones."""

_base_ = ['../cmt/cmt_tiny_real_frame_finetune.py', '../_base_/aqr_tiny.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
