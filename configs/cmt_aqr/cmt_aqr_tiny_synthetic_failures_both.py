"""A bias for whole sensors, and a further one in the windows of each query."""

_base_ = './cmt_aqr_tiny_synthetic_failures_bias.py'

model = dict(pts_bbox_head=dict(aqr=dict(bias_generator=dict(scope='both'))))
