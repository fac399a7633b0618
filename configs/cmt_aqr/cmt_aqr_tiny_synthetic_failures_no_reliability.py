"""An ablation: the router learns from the boxes alone."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(reliability=None)))
