"""Sampler of objects from a database."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from mmcv.ops import box_iou_rotated
from mmdet3d.registry import TRANSFORMS
from mmengine.logging import print_log

from ..reading import reading
from .database import POINT_CHANNELS, ObjectDatabase, StoredObject


@TRANSFORMS.register_module()
class JointDataBaseSampler:
    """Samples objects, with points and image patches, that do not collide with those of a sample.

    Beside the images, it differs from mmdet3d's ``DataBaseSampler`` in the following:

    - workers draw independently; those of mmdet3d share one shuffled list and paste the same
      objects at the same time;
    - boxes that coincide, or are shifted along a side, collide, and so do objects of ignored
      classes, which the sample still has at that point;
    - a class without an object gives a warning, not a ``KeyError``;
    - processes share the memory of the index, see :class:`.database.ObjectDatabase`.

    Args:
        database: folder made by ``tools/create_data.py --with-database``.
        classes: names of the labels of the samples.
        sample_groups: number of objects up to which each class is filled.
        min_points: minimum number of points of an object.
        rate: share of the missing objects that are drawn.
        use_dim: channels of the samples' points, out of x, y, z, intensity and age.

    Raises:
        ValueError: ``sample_groups`` has a class that is not in ``classes``, ``use_dim`` has a
            channel that is not stored, or the database has another format.
        FileNotFoundError: there is no finished database.
    """

    def __init__(
        self,
        *,
        database: str,
        classes: Sequence[str],
        sample_groups: Mapping[str, int],
        min_points: int = 0,
        rate: float = 1.0,
        use_dim: Sequence[int] = (0, 1, 2, 3, 4),
    ) -> None:
        unknown = [name for name in sample_groups if name not in classes]
        if unknown:
            raise ValueError(f'sample_groups names {unknown}; the classes are {list(classes)}')
        if not set(use_dim) <= {*range(POINT_CHANNELS)}:
            raise ValueError(f'use_dim is {list(use_dim)}; points have {POINT_CHANNELS} channels')
        self.database = ObjectDatabase(database)
        self.classes = list(classes)
        self.sample_groups = dict(sample_groups)
        self.rate = rate
        self.use_dim = list(use_dim)
        self._rows = self._rows_by_class(min_points)
        empty = [name for name, rows in self._rows.items() if not len(rows)]
        if empty:
            print_log(
                f'{database} has no object with enough points of {", ".join(empty)}: nothing of '
                'these classes is pasted',
                logger='current',
                level=logging.WARNING,
            )

    def _rows_by_class(self, min_points: int) -> dict[str, np.ndarray]:
        """Numbers of the rows that may be drawn, for each class of ``sample_groups``."""
        enough = self.database.index['num_points'] >= min_points
        labels = self.database.index['label']
        stored = {name: label for label, name in enumerate(self.database.classes)}
        return {
            name: np.flatnonzero((labels == stored.get(name, -1)) & enough).astype(np.int32)
            for name in self.sample_groups
        }

    def draw(self, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Draws objects whose boxes do not overlap the boxes of a sample or each other, from above.

        Args:
            boxes: (N, 9), all boxes of the sample, metres, LiDAR frame.
            labels: (N,), -1 for ignored objects.

        Returns:
            (K,) rows of the index: for each class the number that the sample lacks, times ``rate``,
            minus those that overlap.
        """
        drawn = [np.empty(0, dtype=np.int32)]
        for name, wanted in self.sample_groups.items():
            lacking = wanted - np.count_nonzero(labels == self.classes.index(name))
            rows = self._rows[name]
            if lacking > 0 and len(rows):
                drawn.append(rows[np.random.randint(len(rows), size=round(self.rate * lacking))])
        objects = np.asarray(self.database.index[np.concatenate(drawn)])
        return objects[_free(boxes, objects['box'])]

    def labels_of(self, objects: np.ndarray) -> np.ndarray:
        """(K,) int64: labels of drawn rows, as indices into ``classes``."""
        names = self.database.classes
        return np.array([self.classes.index(names[label]) for label in objects['label']], np.int64)

    def seen_by(self, objects: np.ndarray, camera: str) -> np.ndarray:
        """(K,) bool: whether each object has a patch of a camera."""
        if camera not in self.database.cameras:
            return np.zeros(len(objects), dtype=bool)
        return objects['patch_bytes'][:, self.database.cameras.index(camera)] > 0

    def load(self, row: np.void, cameras: Collection[str], results: Mapping) -> StoredObject:
        """Reads the points of an object, with the channels of ``use_dim``, and its patches.

        Args:
            row: a drawn row.
            cameras: cameras whose patches are read.
            results: the sample, named in errors.

        Raises:
            MissingFileError: the file does not exist.
            DamagedFileError: the file cannot be read.
        """
        with reading(results, str(self.database.shard(row)), 'object to paste in'):
            stored = self.database.read(row, cameras)
        return stored._replace(points=stored.points[:, self.use_dim])


def _free(boxes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(K,) bool: whether each drawn box (K, 9) is free; of two that overlap, the first is."""
    places = np.concatenate([boxes, drawn])
    from_above = torch.as_tensor(places[:, [0, 1, 3, 4, 6]]).float()
    overlap = box_iou_rotated(from_above[len(boxes) :], from_above).numpy() > 0
    taken = np.arange(len(places)) < len(boxes)
    for index, overlapped in enumerate(overlap, len(boxes)):
        taken[index] = not overlapped[taken].any()
    return taken[len(boxes) :]
