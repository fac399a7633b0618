"""A bias on the logits of each sensor's tokens instead of a gate."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(routing=dict(type='BiasRouting'))))
