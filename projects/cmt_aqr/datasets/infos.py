"""Info files of MMDetection3D's format 1.1: reading, and checks of the fields that samples need."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.fileio import load

BOX_NUMBERS = 7
REQUIRED_COLUMNS = ('x', 'y', 'z', 'intensity')
OPTIONAL_COLUMNS = ('ring', 'time', 'unused')


class Infos(NamedTuple):
    """Content of an info file."""

    metainfo: Mapping[str, Any]
    """``categories``, the label of each name; optionally ``point_columns`` and ``num_rings``"""
    entries: list[dict]
    """one dict for each sample"""


def read_infos(file: str | os.PathLike) -> Infos:
    """Reads an info file, a pickle or JSON.

    Raises:
        ValueError: it has another format, or a declaration that is not valid.
    """
    content = load(file)
    if not isinstance(content, Mapping) or not {'metainfo', 'data_list'} <= set(content):
        raise ValueError(f'info file {file} must have metainfo and data_list, see docs/own_data.md')
    infos = Infos(content['metainfo'], content['data_list'])
    for problem in _metainfo_problems(infos.metainfo):
        raise ValueError(f'info file {file}: {problem}')
    return infos


def _metainfo_problems(metainfo: Mapping) -> Iterator[str]:
    categories = metainfo.get('categories')
    if not isinstance(categories, Mapping) or not categories:
        yield (
            'metainfo has no categories; give the label of each class, such as '
            "categories={'car': 0, 'pedestrian': 1}"
        )
    columns = metainfo.get('point_columns')
    if columns is None:
        return
    known = {*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS}
    named = [name for name in columns if name != 'unused']
    lacking = [name for name in REQUIRED_COLUMNS if name not in columns]
    if lacking or set(columns) - known or len(named) != len(set(named)):
        yield (
            f'point_columns is {list(columns)}; it must name every column of a cloud once: '
            f'{", ".join(REQUIRED_COLUMNS)}, and where they exist {", ".join(OPTIONAL_COLUMNS)}'
        )


def entry_problems(entry: Mapping, *, lidar: bool, cameras: bool, annotated: bool) -> Iterator[str]:
    """Yields one line for each field of an entry that is missing or malformed.

    Args:
        entry: entry of ``data_list``.
        lidar, cameras: sensors that are used.
        annotated: whether the sample needs annotations.
    """
    if lidar and not entry.get('lidar_points', {}).get('lidar_path'):
        yield 'lidar_points has no lidar_path; modality=dict(use_lidar=False) does without'
    if cameras and not entry.get('images'):
        yield 'it has no images; modality=dict(use_camera=False) does without'
    for name, camera in (entry.get('images') or {}).items() if cameras else ():
        yield from _camera_problems(name, camera)
    if entry.get('lidar_sweeps') and 'timestamp' not in entry:
        yield 'it has lidar_sweeps but no timestamp, which gives their age'
    if annotated and not isinstance(entry.get('instances'), Sequence):
        yield 'it has no instances; give a sample without objects instances=[]'
    for number, instance in enumerate(entry.get('instances') or ()):
        yield from _instance_problems(number, instance)


def _camera_problems(name: str, camera: Mapping) -> Iterator[str]:
    for key, shapes in (('cam2img', ((3, 3), (3, 4), (4, 4))), ('lidar2cam', ((4, 4),))):
        matrix = camera.get(key)
        if matrix is None:
            yield f'camera {name} has no {key}, {_shapes(shapes)}'
        elif np.shape(matrix) not in shapes:
            yield f'{key} of camera {name} is {np.shape(matrix)}; it must be {_shapes(shapes)}'


def _shapes(shapes: Sequence[tuple[int, int]]) -> str:
    return 'a matrix ' + ' or '.join(f'{rows} x {columns}' for rows, columns in shapes)


def _instance_problems(number: int, instance: Mapping) -> Iterator[str]:
    box = instance.get('bbox_3d', ())
    if len(box) != BOX_NUMBERS:
        yield (
            f'bbox_3d of instance {number} has {len(box)} numbers; it must have {BOX_NUMBERS}: '
            'x, y, z of the centre, length, width, height, yaw'
        )
    if 'bbox_label_3d' not in instance:
        yield f'instance {number} has no bbox_label_3d, the label of its class'


def choose(names: Sequence[str], known: Collection[str], what: str) -> None:
    """Checks that all names are known.

    Args:
        names: names that a user gave.
        known: names that exist.
        what: the names in a message, such as 'scenes'.

    Raises:
        ValueError: a name is unknown; the message has the nearest known one.
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(str(name), [str(n) for n in known], n=1)
            hint = f'did you mean {near[0]!r}? ' if near else ''
            listed = ', '.join(sorted(map(str, known))[:20])
            raise ValueError(f'{what} has no {name!r}; {hint}It has: {listed}')
