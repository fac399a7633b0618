"""A bias in the windows of each query alone."""

_base_ = './cmt_aqr_tiny_synthetic_failures_bias.py'

model = dict(pts_bbox_head=dict(aqr=dict(bias_generator=dict(scope='local'))))
