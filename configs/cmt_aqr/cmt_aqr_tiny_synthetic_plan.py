"""A planner on the frozen tiny CMT with its router, both trained under sensor failures before."""

_base_ = ['../cmt/cmt_tiny_synthetic_plan.py', '../_base_/aqr_tiny.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))

load_from = 'projects/cmt_aqr/weights/cmt_aqr_tiny_synthetic_failures.pth'
