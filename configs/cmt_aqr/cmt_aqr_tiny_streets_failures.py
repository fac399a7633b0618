"""The tiny CMT for the streets, fine-tuned under sensor failures with a router: a gate."""

_base_ = ['../cmt/cmt_tiny_streets_failures.py', '../_base_/aqr_tiny.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
