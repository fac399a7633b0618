"""`cmt_tiny_streets_lidar_expert.py` with the base on the undamaged frame as a teacher."""

_base_ = '../../configs/cmt/cmt_tiny_streets_lidar_expert.py'

custom_imports = dict(
    imports=['projects.cmt_aqr', 'benchmarks.routing.taught_head'], allow_failed_imports=False
)
model = dict(
    pts_bbox_head=dict(
        type='TaughtHead', rank=None, teacher='work_dirs/cmt_tiny_streets_teacher.pth'
    )
)
