"""Sensor failures for training: LiDAR or cameras fail, as a whole or in part, never both.

A quarter of the samples stays intact, a quarter loses a whole sensor, and half is damaged in part.
Fog, ghost points, frozen and knocked cameras are left out, so that tests with them are of unseen
failures; a config adds misalignment and stale frames, or leaves them out as well.

For an expert, every sample draws a failure of its sensor; an eighth of the draws for the LiDAR and
a fifth of those for cameras, which include misalignment, spare the frame.
"""

whole_sensors = [dict(type='LidarDrop'), dict(type='CameraDrop')]
parts_of_lidar = [
    *(dict(type='BeamReduction', severity=severity) for severity in (1, 2, 3)),
    *(dict(type='LimitedFieldOfView', severity=severity) for severity in (1, 2)),
    *(dict(type='PointsDrop', severity=severity) for severity in (1, 2, 3)),
    *[dict(type='ObjectFailure')] * 4,  # it leaves half of the frames intact
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
# First steps of a training pipeline: every epoch draws a new failure for each sample.
draw_failures = [dict(type='DrawIndex'), random_failure]
# In place of `random_failure`, for an expert of that sensor. A config with data adds stale frames,
# which need the `ann_file`.
misalignment = [dict(type='Misalignment', severity=severity) for severity in (1, 2, 3)]
only_lidar_fails = dict(
    random_failure, prob=1.0, failures=[*whole_sensors[:1] * 4, *parts_of_lidar]
)
only_cameras_fail = dict(
    random_failure,
    prob=1.0,
    failures=[*whole_sensors[1:] * 4, *parts_of_cameras, *misalignment],
)
stale_frames = [dict(type='StaleFrame', severity=severity) for severity in (1, 2, 3)]
