"""The shares of the sensors in the output of attention set, in place of a bias."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(bias_generator=dict(form='mix'))))
