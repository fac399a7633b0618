"""The shares of the sensors in the output of attention are set, and not scaled as by a gate."""

_base_ = './cmt_aqr_tiny_synthetic_failures_labels.py'

model = dict(pts_bbox_head=dict(aqr=dict(bias_generator=dict(form='mix'))))
