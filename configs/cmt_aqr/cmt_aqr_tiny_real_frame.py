"""The same with a router as `cmt_tiny_real_frame_finetune.py` without."""

_base_ = ['../cmt/cmt_tiny_real_frame_finetune.py', '../_base_/aqr.py']

aqr = dict(
    _base_.aqr,
    windows=dict(lidar=3, camera=3),
    weight_generator=dict(_base_.aqr.weight_generator, feedforward_channels=256),
)
model = dict(pts_bbox_head=dict(aqr=aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
