"""A health monitor beside a CMT that is frozen as a whole, and the failures that it learns from.

LiDAR and cameras fail independently of each other, each in half of the samples. Fog, ghost points,
frozen and knocked cameras are left out, so that tests with them are of unseen failures.
"""

_base_ = ['./failures.py', './frozen_detector.py']

health_monitor = dict(type='HealthMonitor')
lidar_fails = dict(
    type='RandomFailure',
    prob=0.5,
    failures=[
        *[dict(type='LidarDrop')] * 2,
        *_base_.parts_of_lidar,
        *[dict(type='ObjectFailure')] * 2,
    ],
)
# A config with data adds stale frames, which need the `ann_file`.
cameras_fail = dict(
    type='RandomFailure',
    prob=0.5,
    seed=1,
    failures=[
        dict(type='CameraDrop'),
        *_base_.parts_of_cameras,
        *(dict(type='Misalignment', severity=severity) for severity in (1, 2, 3, 3, 3)),
    ],
)
stale_cameras = [
    dict(type='StaleFrame', sensor=sensor, severity=3)
    for sensor in ('camera', 'each_camera', 'each_camera')
]

health_epochs = 2
health_optimizer = dict(lr=3e-3, weight_decay=0.01)
health_schedule = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=health_epochs,
        eta_min_ratio=1e-3,
        convert_to_iter_based=True,
    ),
]
