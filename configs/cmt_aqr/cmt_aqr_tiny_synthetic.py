"""The shipped tiny CMT with a router, by recipe A: the backbones are frozen."""

_base_ = ['../cmt/cmt_tiny_synthetic_finetune.py', '../_base_/aqr.py']

aqr = dict(
    _base_.aqr,
    windows=dict(lidar=3, camera=3),
    weight_generator=dict(_base_.aqr.weight_generator, feedforward_channels=256),
)
model = dict(pts_bbox_head=dict(aqr=aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
