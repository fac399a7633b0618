"""A health monitor beside a CMT that is frozen as a whole, and the failures that it learns from.

LiDAR and cameras fail independently of each other, each in half of the samples. Fog, ghost points,
frozen and knocked cameras are left out, so that tests with them are of unseen failures.
"""

health_monitor = dict(type='HealthMonitor')
frozen_cmt = {
    part: dict(frozen=True, norm_eval=True)
    for part in (
        'img_backbone', 'img_neck', 'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone',
        'pts_neck', 'pts_bbox_head',
    )
}  # fmt: skip

lidar_fails = dict(
    type='RandomFailure',
    prob=0.5,
    failures=[
        *[dict(type='LidarDrop')] * 2,
        *(dict(type='BeamReduction', severity=severity) for severity in (1, 2, 3)),
        *(dict(type='LimitedFieldOfView', severity=severity) for severity in (1, 2)),
        *(dict(type='PointsDrop', severity=severity) for severity in (1, 2, 3)),
        *[dict(type='ObjectFailure')] * 6,  # it leaves half of the frames intact
    ],
)
# A config with data adds stale frames, which need the `ann_file`.
cameras_fail = dict(
    type='RandomFailure',
    prob=0.5,
    seed=1,
    failures=[
        dict(type='CameraDrop'),
        *(
            dict(type=failure, severity=severity)
            for failure in ('RandomCameraLoss', 'Occlusion', 'Darkness', 'MotionBlur')
            for severity in (1, 2, 3)
        ),
        *(dict(type='Misalignment', severity=severity) for severity in (1, 2, 3, 3, 3)),
    ],
)
stale_cameras = [
    dict(type='StaleFrame', sensor=sensor, severity=3)
    for sensor in ('camera', 'each_camera', 'each_camera')
]
