"""`cmt_tiny_streets_lidar_expert.py` as deltas of rank 8."""

_base_ = '../../configs/cmt/cmt_tiny_streets_lidar_expert.py'

custom_imports = dict(
    imports=['projects.cmt_aqr', 'benchmarks.routing.taught_head'], allow_failed_imports=False
)
model = dict(pts_bbox_head=dict(type='LowRankHead', rank=8))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
