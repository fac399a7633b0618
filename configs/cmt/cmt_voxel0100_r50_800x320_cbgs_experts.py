"""Experts for a damaged LiDAR and for damaged cameras, behind the health monitor.

The monitor trains, beside a frozen CMT and frozen experts. Give the trained CMT as `load_from`, the
same from which the experts started.
"""

_base_ = './cmt_voxel0100_r50_800x320_cbgs_health.py'

model = dict(
    type='ExpertDetector',
    experts=dict(
        lidar='work_dirs/cmt_voxel0100_r50_800x320_cbgs_lidar_expert/epoch_6.pth',
        camera='work_dirs/cmt_voxel0100_r50_800x320_cbgs_camera_expert/epoch_6.pth',
    ),
    below=dict(lidar=0.5, camera=0.5),
)
