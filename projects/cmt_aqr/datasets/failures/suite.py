"""Protocols of robustness tests: their failures, and the departures from what was published.

- ``mome``: the failures of MoME's table (Park et al., CVPR 2025), one severity each.
- ``multicorrupt``: MultiCorrupt (Beemelmanns et al., IV 2024) without snow and brightness.
- ``all``: every failure of this project at every severity.

Scores of a row are comparable with published ones only as far as its departure allows.
"""

from __future__ import annotations

from dataclasses import dataclass

from .lidar import BEVFUSION_RINGS

PROTOCOLS = ('mome', 'multicorrupt', 'all')
UNSEEN = ('fog', 'ghost_points', 'frozen_camera', 'knocked_camera')
"""Failures that no config of the project trains with."""


@dataclass(frozen=True)
class Row:
    """One failure of a protocol."""

    name: str
    failure: dict
    """config of the transform without a severity"""
    severities: tuple[int, ...]
    departure: str = ''
    """departure from the published protocol; empty in the project's own"""

    @property
    def conditions(self) -> dict[str, dict]:
        """Config at each severity, by the name of the condition: ``NAME_SEVERITY``."""
        return {
            f'{self.name}_{severity}': dict(self.failure, severity=severity)
            for severity in self.severities
        }


def protocol(name: str, *, ann_file: str, seed: int = 0) -> tuple[Row, ...]:
    """Returns the rows of a protocol.

    Args:
        name: one of `PROTOCOLS`.
        ann_file: info file of the test data, in which `StaleFrame` and `FrozenCamera` find
            previous keyframes.
        seed: seed of all failures.

    Raises:
        ValueError: there is no such protocol.
    """
    if name not in PROTOCOLS:
        raise ValueError(f'suite is {name!r}; it must be one of {list(PROTOCOLS)}')
    rows = {'mome': _MOME, 'multicorrupt': _MULTICORRUPT, 'all': _ALL}[name]
    return tuple(_complete(row, ann_file, seed) for row in rows)


def _complete(row: Row, ann_file: str, seed: int) -> Row:
    failure = dict(row.failure, seed=seed)
    if failure['type'] in ('StaleFrame', 'FrozenCamera'):
        failure['ann_file'] = ann_file
    return Row(row.name, failure, row.severities, row.departure)


_MOME = (
    Row(
        'beam_reduction',
        dict(type='BeamReduction', rings=BEVFUSION_RINGS),
        (3,),
        'MoME does not say which 4 of 32 beams it keeps; here those of BEVFusion.',
    ),
    Row(
        'lidar_drop',
        dict(type='LidarDrop'),
        (1,),
        'The cloud is empty; published code multiplies it by zero, which leaves an occupied voxel '
        "at the origin: LidarDrop with mode='zeros'.",
    ),
    Row('limited_fov', dict(type='LimitedFieldOfView'), (2,), 'None known: ±60°.'),
    Row(
        'object_failure',
        dict(type='ObjectFailure'),
        (1,),
        'Boxes move back along their velocity for the sweeps; another half of the frames loses its '
        'objects.',
    ),
    Row('view_drop', dict(type='CameraDrop'), (1,), 'None known: all six cameras black.'),
    Row(
        'occlusion',
        dict(type='Occlusion'),
        (2,),
        "Generated mud over 35 % of each image; MoME uses WoodScape's masks of lens dirt.",
    ),
)
_MULTICORRUPT = (
    Row('beam_reduction', dict(type='BeamReduction'), (1, 2, 3), 'None known: the same rings.'),
    Row(
        'points_drop',
        dict(type='PointsDrop'),
        (1, 2, 3),
        'Drawn for each point and cloud independently; published: the same indices in all clouds '
        'of one size.',
    ),
    Row(
        'camera_loss',
        dict(type='RandomCameraLoss'),
        (1, 2, 3),
        'Another draw of frames and cameras.',
    ),
    Row(
        'misalignment',
        dict(type='Misalignment'),
        (1, 2, 3),
        'The calibration is wrong and the points are right; published: the points move away from '
        'their boxes.',
    ),
    Row(
        'stale_sensors',
        dict(type='StaleFrame', sensor='each_sensor'),
        (1, 2, 3),
        'Within a scene alone; published: also across scenes.',
    ),
    Row(
        'fog',
        dict(type='Fog'),
        (1, 2, 3),
        'Returns are lost by exp(-2 α R) instead of replaced by the echo of the fog; grey by the '
        'distance to a flat ground instead of an image of noise.',
    ),
    Row(
        'darkness',
        dict(type='Darkness'),
        (1, 2, 3),
        'A factor and noise of one strength; published: also a gamma, and noise that grows with '
        'the brightness.',
    ),
    Row(
        'motion_blur',
        dict(type='MotionBlur'),
        (1, 2, 3),
        'Images only; published: also jitters the points.',
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
    Row('stale_sensors', dict(type='StaleFrame', sensor='each_sensor'), (1, 2, 3)),
    Row('ghost_points', dict(type='GhostPoints'), (1, 2, 3)),
    Row('frozen_camera', dict(type='FrozenCamera'), (1, 2)),
    Row('knocked_camera', dict(type='KnockedCamera'), (1, 2, 3)),
)
