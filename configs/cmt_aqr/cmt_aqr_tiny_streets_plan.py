"""The planner for the streets on a frozen tiny CMT with a router."""

_base_ = ['../cmt/cmt_tiny_streets_plan.py', '../_base_/aqr_tiny.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))

load_from = 'work_dirs/cmt_aqr_tiny_streets_failures/epoch_3.pth'
