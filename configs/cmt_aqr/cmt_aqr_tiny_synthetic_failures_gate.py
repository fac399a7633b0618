"""A gate on the share of each sensor in the output of attention, in place of a bias."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(bias_generator=dict(form='gate'))))
