"""Sensor failures to train with: of one sensor at a time, as a whole or in part.

Fog, misalignment and stale frames are left out, so that tests with them are of failures unseen. Of
the samples a quarter stays whole, a quarter loses a whole sensor, and half is damaged in part.
"""

whole_sensors = [dict(type='LidarDrop'), dict(type='CameraDrop')]
parts_of_lidar = [
    *(dict(type='BeamReduction', severity=severity) for severity in (1, 2, 3)),
    *(dict(type='LimitedFieldOfView', severity=severity) for severity in (1, 2)),
    *(dict(type='PointsDrop', severity=severity) for severity in (1, 2, 3)),
    *[dict(type='ObjectFailure')] * 4,  # it spares half of the frames
]
parts_of_cameras = [
    dict(type=failure, severity=severity)
    for failure in ('RandomCameraLoss', 'Occlusion', 'Darkness', 'MotionBlur')
    for severity in (1, 2, 3)
]
random_failure = dict(
    type='RandomFailure',
    prob=0.75,
    failures=[*whole_sensors * 6, *parts_of_lidar, *parts_of_cameras],
)
# Before all else in a training pipeline: each epoch draws the failure of a sample anew.
draw_failures = [dict(type='DrawIndex'), random_failure]
