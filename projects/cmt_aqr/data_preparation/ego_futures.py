"""Ego futures in existing info files, from the tables of a database in nuScenes' format."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from mmengine.fileio import dump, load
from mmengine.logging import print_log
from nuscenes import NuScenes
from pyquaternion import Quaternion

from ..files import replacing
from ..planning.ego_future import scene_futures
from .data_root import LIDAR_CHANNEL, open_database


def add_ego_futures(
    root: str | os.PathLike, files: Sequence[str | os.PathLike], *, version: str
) -> list[Path]:
    """Adds the ego vehicle's future and the name of the scene to each sample of the info files.

    ``scene`` is the scene's name. ``ego_future`` has the fields of
    :class:`~projects.cmt_aqr.planning.ego_future.EgoFuture`; ``future_tokens`` names the keyframes
    that follow in the scene, at most T.

    Args:
        root: data root with the tables.
        files: info files in mmdet3d's v1.1 format, each replaced as a whole.
        version: version of the tables.

    Raises:
        FileNotFoundError: the data root has no tables of the version.
        KeyError: a sample of an info file is not in the tables.
    """
    futures = {}
    database = open_database(root, version)
    for scene in database.scene:
        futures.update(_futures_of(database, scene))
    written = []
    for file in map(Path, files):
        content = load(file)
        for info in content['data_list']:
            if info['token'] not in futures:
                raise KeyError(f'{file}: sample {info["token"]} is not in the tables of {version}')
            info.update(futures[info['token']])
        with replacing(file) as partial:
            dump(content, partial, file_format='pkl')
        written.append(file)
    print_log(f'added ego futures to {", ".join(f.name for f in written)}', logger='current')
    return written


def _futures_of(database: NuScenes, scene: dict) -> Iterator[tuple[str, dict]]:
    """Yields the token of every keyframe of a scene and what is added to its info."""
    samples = [*_keyframes(database, scene)]
    records = [database.get('sample_data', s['data'][LIDAR_CHANNEL]) for s in samples]
    poses = np.stack([_matrix(database.get('ego_pose', r['ego_pose_token'])) for r in records])
    tokens = [sample['token'] for sample in samples]
    futures = scene_futures(poses, [sample['timestamp'] / 1e6 for sample in samples])
    for index, (token, future) in enumerate(zip(tokens, futures, strict=True)):
        following = tokens[index + 1 : index + 1 + len(future.mask)]
        yield (
            token,
            dict(scene=scene['name'], ego_future=future._asdict(), future_tokens=following),
        )


def _keyframes(database: NuScenes, scene: dict) -> Iterator[dict]:
    token = scene['first_sample_token']
    while token:
        sample = database.get('sample', token)
        yield sample
        token = sample['next']


def _matrix(pose: dict) -> np.ndarray:
    """(4, 4): ego frame to global frame."""
    matrix = Quaternion(pose['rotation']).transformation_matrix
    matrix[:3, 3] = pose['translation']
    return matrix
