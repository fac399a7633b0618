"""Drawing objects from a database of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import mmcv
import numpy as np
import torch
from mmcv.ops import box_iou_rotated
from mmdet3d.datasets.transforms.dbsampler import DataBaseSampler
from mmdet3d.registry import TRANSFORMS
from mmdet3d.structures.points import BasePoints
from mmengine.logging import print_log

from ..reading import DamagedFileError, reading
from .database import patch_path

REMEDY = 'make it anew: python tools/create_data.py {root} --version VERSION --with-database'


@TRANSFORMS.register_module()
class JointDataBaseSampler(DataBaseSampler):
    """mmdet3d's sampler of objects, for their points and image patches.

    Takes the arguments of ``DataBaseSampler``, and its filters. The draw is another, for there

    - workers share a shuffled list of objects, and all paste the same ones at the same time;
    - the test for collisions misses boxes that lie on each other exactly, such as an object on
      itself, or shifted along a side;
    - classes of which there is no object end in a ``KeyError``; here a warning names them;
    - ``sample_all`` needs a numpy below 1.24 or from 2.0 on.

    Raises:
        ValueError: ``sample_groups`` names a class that is none of ``classes``.
        FileNotFoundError: there is no database; the message says how to make it.
    """

    def __init__(
        self,
        *,
        info_path: str,
        data_root: str,
        classes: Sequence[str],
        sample_groups: Mapping[str, int],
        points_loader: Mapping,
        prepare: Mapping | None = None,
        rate: float = 1.0,
        backend_args: dict | None = None,
    ) -> None:
        unknown = [name for name in sample_groups if name not in classes]
        if unknown:
            raise ValueError(f'sample_groups names {unknown}; the classes are {list(classes)}')
        if backend_args is None and not Path(info_path).is_file():
            raise FileNotFoundError(
                f'{info_path}, the database of objects to paste, does not exist (in {Path.cwd()}); '
                f'{REMEDY.format(root=data_root)}'
            )
        super().__init__(
            info_path=info_path,
            data_root=data_root,
            rate=rate,
            prepare=dict(prepare or {}),
            sample_groups=dict(sample_groups),
            classes=list(classes),
            points_loader=dict(points_loader),
            backend_args=backend_args,
        )
        empty = [name for name in self.sample_classes if not self.db_infos.get(name)]
        if empty:
            print_log(
                f'{info_path} has no object with enough points of {", ".join(empty)}: none of '
                'these classes are pasted',
                logger='current',
                level=logging.WARNING,
            )

    @staticmethod
    def filter_by_min_points(db_infos: dict, min_gt_points_dict: Mapping[str, int]) -> dict:
        """As mmdet3d's, for the classes that there are."""
        known = {name: least for name, least in min_gt_points_dict.items() if name in db_infos}
        return DataBaseSampler.filter_by_min_points(db_infos, known)

    def draw(self, boxes: np.ndarray, labels: np.ndarray) -> list[dict]:
        """Objects whose boxes, from above, overlap neither those of a sample nor each other.

        Args:
            boxes: (N, 9) of the sample, metres, in the LiDAR frame.
            labels: (N,).

        Returns:
            Entries of the database: of each class as many as the sample lacks of
            ``sample_groups``, times ``rate``, less those that overlap.
        """
        drawn: list[dict] = []
        for name, wanted in zip(self.sample_classes, self.sample_max_nums, strict=True):
            lacking = wanted - np.count_nonzero(labels == self.cat2label[name])
            entries = self.db_infos.get(name)
            if lacking > 0 and entries:
                numbers = np.random.randint(len(entries), size=round(self.rate * lacking))
                drawn += [entries[number] for number in numbers]
        return [drawn[index] for index in _free(boxes, drawn)]

    def load_points(self, entry: Mapping, results: Mapping) -> BasePoints:
        """The points of an object where it stood, in the LiDAR frame.

        Args:
            entry: of the database.
            results: the sample that they are for, which errors name.

        Raises:
            MissingFileError: the file does not exist.
            DamagedFileError: it cannot be read.
        """
        path = str(Path(self.data_root or '', entry['path']))
        with reading(results, path, 'points of an object to paste'):
            points = self.points_loader(dict(lidar_points=dict(lidar_path=path)))['points']
        points.translate(entry['box3d_lidar'][:3])
        return points

    def load_patch(self, entry: Mapping, camera: str, results: Mapping) -> np.ndarray:
        """(h, w, 3) uint8: an object as a camera saw it.

        Args:
            entry: of the database.
            camera: one of its ``patches``.
            results: the sample that it is for, which errors name.

        Raises:
            MissingFileError: the file does not exist.
            DamagedFileError: it cannot be read.
        """
        path = str(Path(self.data_root or '', patch_path(entry['path'], camera)))
        with reading(results, path, 'patch of an object to paste'):
            patch = mmcv.imread(path, backend_args=self.backend_args)
            if patch is None:
                raise DamagedFileError('it is no image')
        return patch


def _free(boxes: np.ndarray, entries: Sequence[Mapping]) -> list[int]:
    """Which entries have a place of their own, if the earlier of two that overlap gets it."""
    places = np.concatenate([boxes, *(entry['box3d_lidar'][None] for entry in entries)])
    from_above = torch.as_tensor(places[:, [0, 1, 3, 4, 6]]).float()
    overlap = box_iou_rotated(from_above[len(boxes) :], from_above).numpy() > 0
    taken = np.arange(len(places)) < len(boxes)
    for index, overlapped in enumerate(overlap, len(boxes)):
        taken[index] = not overlapped[taken].any()
    return np.flatnonzero(taken[len(boxes) :]).tolist()
