"""The thirteen tables of the nuScenes schema.

Tokens are hashes of a description of the record, so that they are the same in every run.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from .rig import CAMERAS, LIDAR, CameraMount, Mount
from .taxonomy import CLASSES, ObjectClass

Record = dict
Tables = dict[str, list[Record]]

TABLE_NAMES = (
    'attribute',
    'calibrated_sensor',
    'category',
    'ego_pose',
    'instance',
    'log',
    'map',
    'sample',
    'sample_annotation',
    'sample_data',
    'scene',
    'sensor',
    'visibility',
)
ATTRIBUTES = {
    'vehicle.moving': 'Vehicle is moving.',
    'vehicle.stopped': 'Vehicle stands with the intent to move on.',
    'vehicle.parked': 'Vehicle stands without the intent to move.',
    'cycle.with_rider': 'There is a rider on the cycle.',
    'cycle.without_rider': 'There is no rider on the cycle.',
    'pedestrian.sitting_lying_down': 'The person sits or lies.',
    'pedestrian.standing': 'The person stands.',
    'pedestrian.moving': 'The person walks.',
}
# Upper bounds of the visible share of an object's pixels, by official token.
VISIBILITY_BINS = {'1': 0.4, '2': 0.6, '3': 0.8, '4': 1.0}
MAP_FILE = 'maps/synthetic.png'


def token(*description: object) -> str:
    """Returns 32 hexadecimal digits, a hash of the description of a record."""
    return hashlib.md5('/'.join(map(str, description)).encode()).hexdigest()


def visibility_token(share: float) -> str:
    """Returns the official visibility token of a visible share of pixels between 0 and 1."""
    return next(name for name, bound in VISIBILITY_BINS.items() if share <= bound)


def yaw_quaternion(yaw: float) -> list[float]:
    """(w, x, y, z) of a rotation about z by ``yaw`` radians."""
    return [float(np.cos(yaw / 2)), 0.0, 0.0, float(np.sin(yaw / 2))]


def static_tables(
    log_tokens: Sequence[str],
    classes: Sequence[ObjectClass] = CLASSES,
    modalities: Mapping[str, str] | None = None,
) -> Tables:
    """Makes the tables that do not depend on the scenes, with one map for all logs.

    Args:
        log_tokens: tokens of all logs.
        classes: classes in the table of categories.
        modalities: 'camera' or 'lidar' for each channel of the rig; None for the synthetic rig.
    """
    if modalities is None:
        modalities = {**{c.channel: 'camera' for c in CAMERAS}, LIDAR.channel: 'lidar'}
    bounds = [0.0, *VISIBILITY_BINS.values()]
    return dict(
        attribute=[
            dict(token=token('attribute', name), name=name, description=text)
            for name, text in ATTRIBUTES.items()
        ],
        category=[
            dict(token=token('category', c.category), name=c.category, description=c.name)
            for c in classes
        ],
        sensor=[
            dict(token=token('sensor', channel), channel=channel, modality=modality)
            for channel, modality in modalities.items()
        ],
        visibility=[
            dict(
                token=name,
                level=f'v{low * 100:.0f}-{high * 100:.0f}',
                description=f'{low:.0%} to {high:.0%} of the pixels are visible',
            )
            for name, low, high in zip(VISIBILITY_BINS, bounds[:-1], bounds[1:], strict=True)
        ],
        map=[
            dict(
                token=token('map'),
                category='semantic_prior',
                filename=MAP_FILE,
                log_tokens=list(log_tokens),
            )
        ],
    )


def calibrated_sensor(mount: Mount, log: str, width: int, height: int) -> Record:
    """Makes the calibration of a sensor; ``width`` and ``height``, pixels, are those of images."""
    camera = isinstance(mount, CameraMount)
    return dict(
        token=token('calibrated_sensor', log, mount.channel),
        sensor_token=token('sensor', mount.channel),
        translation=list(mount.position),
        rotation=[float(x) for x in mount.rotation.elements],
        camera_intrinsic=mount.intrinsic(width, height).tolist() if camera else [],
    )


def link(records: Iterable[Record]) -> None:
    """Links consecutive records by their ``prev`` and ``next`` tokens."""
    records = list(records)
    for record in records:
        record['prev'] = record['next'] = ''
    for before, after in pairwise(records):
        before['next'], after['prev'] = after['token'], before['token']
