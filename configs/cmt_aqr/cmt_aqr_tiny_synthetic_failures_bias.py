"""A bias on the logits of each sensor's tokens, in place of a gate."""

_base_ = './cmt_aqr_tiny_synthetic_failures_labels.py'

model = dict(pts_bbox_head=dict(aqr=dict(bias_generator=dict(form='add'))))
