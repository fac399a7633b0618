"""The router of cmt_aqr_tiny_synthetic_failures.py with a weight for each camera."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(weight_generator=dict(groups='camera'))))
