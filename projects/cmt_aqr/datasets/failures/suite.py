"""Which failures a robustness test runs: the protocols by name, and where each row departs.

- ``mome``: the failures of MoME's table (Park et al., CVPR 2025), each at one severity.
- ``multicorrupt``: MultiCorrupt (Beemelmanns et al., IV 2024) without its snow and its brightness.
- ``all``: every failure of this project at every severity.

Scores of a row compare with published ones only as far as its departure allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from .lidar import BEVFUSION_RINGS

PROTOCOLS = ('mome', 'multicorrupt', 'all')
UNSEEN = ('fog', 'misalignment', 'stale_frame')
"""Failures that the project's configs do not train with."""


@dataclass(frozen=True)
class Row:
    """One failure of a protocol."""

    name: str
    failure: dict
    """config of the transform, without its severity"""
    severities: tuple[int, ...]
    departure: str = ''
    """from what the protocol published; empty in what is this project's own"""

    @property
    def conditions(self) -> dict[str, dict]:
        """Config at each severity, by the condition's name: the failure's, and its severity."""
        return {
            f'{self.name}_{severity}': dict(self.failure, severity=severity)
            for severity in self.severities
        }


def protocol(name: str, *, ann_file: str, seed: int = 0) -> tuple[Row, ...]:
    """The rows of a protocol.

    Args:
        name: one of `PROTOCOLS`.
        ann_file: info file of the dataset that is tested, in which `StaleFrame` finds the frames
            before.
        seed: of all failures.

    Raises:
        ValueError: for another name.
    """
    if name not in PROTOCOLS:
        raise ValueError(f'suite is {name!r}; it must be one of {list(PROTOCOLS)}')
    rows = {'mome': _MOME, 'multicorrupt': _MULTICORRUPT, 'all': _ALL}[name]
    return tuple(_complete(row, ann_file, seed) for row in rows)


def _complete(row: Row, ann_file: str, seed: int) -> Row:
    failure = dict(row.failure, seed=seed)
    if failure['type'] == 'StaleFrame':
        failure['ann_file'] = ann_file
    return Row(row.name, failure, row.severities, row.departure)


_MOME = (
    Row(
        'beam_reduction',
        dict(type='BeamReduction', rings=BEVFUSION_RINGS),
        (3,),
        'MoME does not say which 4 of 32 beams it keeps; these are those of BEVFusion.',
    ),
    Row(
        'lidar_drop',
        dict(type='LidarDrop'),
        (1,),
        'The cloud is empty. Published code multiplies it by zero, which leaves an occupied voxel '
        "at the origin: LidarDrop with mode='zeros'.",
    ),
    Row('limited_fov', dict(type='LimitedFieldOfView'), (2,), 'None known: ±60°.'),
    Row(
        'object_failure',
        dict(type='ObjectFailure'),
        (1,),
        'Boxes move back along their velocity for the sweeps; the frames of the half that loses '
        'its objects are other ones.',
    ),
    Row('view_drop', dict(type='CameraDrop'), (1,), 'None known: all six cameras black.'),
    Row(
        'occlusion',
        dict(type='Occlusion'),
        (2,),
        "Made-up mud over 35 % of each image; MoME's masks of lens dirt are WoodScape's, which "
        'cannot be had everywhere.',
    ),
)
_MULTICORRUPT = (
    Row('beam_reduction', dict(type='BeamReduction'), (1, 2, 3), 'None known: the same rings.'),
    Row(
        'points_drop',
        dict(type='PointsDrop'),
        (1, 2, 3),
        'Drawn for each point and cloud on its own; published: the same places of all clouds of '
        'one size.',
    ),
    Row(
        'camera_loss',
        dict(type='RandomCameraLoss'),
        (1, 2, 3),
        'Other cameras are lost in other frames.',
    ),
    Row(
        'misalignment',
        dict(type='Misalignment'),
        (1, 2, 3),
        'The calibration is wrong and points stay true; published: the points move, also from '
        'their boxes.',
    ),
    Row(
        'stale_frame',
        dict(type='StaleFrame', sensor='camera'),
        (1, 2, 3),
        'All cameras repeat their previous keyframe together; published: LiDAR and each camera on '
        'their own, across scenes where a scene begins.',
    ),
    Row(
        'fog',
        dict(type='Fog'),
        (1, 2, 3),
        'Returns are lost with exp(-2 α R) instead of moved by the echo of the fog; grey by the '
        'distance to a flat ground instead of a picture of noise.',
    ),
    Row(
        'darkness',
        dict(type='Darkness'),
        (1, 2, 3),
        'A factor with noise that is equally strong everywhere; published: also a gamma, and noise '
        'that grows with the brightness.',
    ),
    Row(
        'motion_blur',
        dict(type='MotionBlur'),
        (1, 2, 3),
        'Images alone; published: also jitters the points.',
    ),
)
_ALL = (
    Row('lidar_drop', dict(type='LidarDrop'), (1,)),
    Row('beam_reduction', dict(type='BeamReduction'), (1, 2, 3)),
    Row('points_drop', dict(type='PointsDrop'), (1, 2, 3)),
    Row('limited_fov', dict(type='LimitedFieldOfView'), (1, 2)),
    Row('object_failure', dict(type='ObjectFailure'), (1,)),
    Row('view_drop', dict(type='CameraDrop'), (1,)),
    Row('camera_loss', dict(type='RandomCameraLoss'), (1, 2, 3)),
    Row('occlusion', dict(type='Occlusion'), (1, 2, 3)),
    Row('darkness', dict(type='Darkness'), (1, 2, 3)),
    Row('motion_blur', dict(type='MotionBlur'), (1, 2, 3)),
    Row('fog', dict(type='Fog'), (1, 2, 3)),
    Row('misalignment', dict(type='Misalignment'), (1, 2, 3)),
    Row('stale_frame', dict(type='StaleFrame', sensor='camera'), (1, 2, 3)),
)
