"""Experts for a damaged LiDAR and for damaged cameras, behind the health monitor.

The monitor trains, beside a frozen CMT and frozen experts.
"""

_base_ = './cmt_tiny_streets_health.py'

model = dict(
    type='ExpertDetector',
    experts=dict(
        lidar='work_dirs/cmt_tiny_streets_lidar_expert/epoch_3.pth',
        camera='work_dirs/cmt_tiny_streets_camera_expert/epoch_3.pth',
    ),
    below=dict(lidar=0.5, camera=0.5),
)
