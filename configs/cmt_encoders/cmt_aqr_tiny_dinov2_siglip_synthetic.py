"""A router on the tiny CMT with both ViTs."""

_base_ = ['./cmt_tiny_dinov2_siglip_synthetic.py', '../_base_/aqr_tiny.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
