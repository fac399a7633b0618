"""The Adaptive Query Router for the maps and channels of the tiny model."""

_base_ = './aqr.py'

aqr = dict(
    windows=dict(lidar=3, camera=3),
    weight_generator=dict(feedforward_channels=256),
)
