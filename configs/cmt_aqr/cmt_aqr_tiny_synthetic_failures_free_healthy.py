"""An ablation: weights of healthy input are left to the boxes, only those of damage are pulled."""

_base_ = './cmt_aqr_tiny_synthetic_failures_labels.py'

model = dict(pts_bbox_head=dict(aqr=dict(reliability=dict(pull_healthy=False))))
