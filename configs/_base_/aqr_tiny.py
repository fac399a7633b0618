"""The Adaptive Query Router in the size of the tiny model."""

_base_ = './aqr.py'

aqr = dict(
    windows=dict(lidar=3, camera=3),
    weight_generator=dict(feedforward_channels=256),
)
