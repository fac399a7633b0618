"""Drawing objects from a database of them."""

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
    """Draws objects, with their points and image patches, that fit between those of a sample.

    It differs from mmdet3d's ``DataBaseSampler``, beside the images, in that

    - workers draw objects of their own; mmdet3d's share a shuffled list, and all paste the same
      ones at the same time;
    - boxes that lie on each other exactly, or shifted along a side, collide, and so do objects of
      ignored classes, which the sample still has at that point;
    - classes without an object give a warning, not a ``KeyError``;
    - processes share the memory of the index, see :class:`.database.ObjectDatabase`.

    Args:
        database: folder that ``tools/create_data.py --with-database`` has made.
        classes: names of the labels of the samples.
        sample_groups: number of objects up to which each class is filled.
        min_points: points that an object has at least.
        rate: share of the missing objects that are drawn.
        use_dim: channels of the points, of x, y, z, intensity and age, as the samples have them.

    Raises:
        ValueError: ``sample_groups`` names a class that is none of ``classes``, ``use_dim`` a
            channel that is not stored, or the database has another format.
        FileNotFoundError: there is no finished database; the message says how to make it.
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
                f'{database} has no object with enough points of {", ".join(empty)}: none of '
                'these classes are pasted',
                logger='current',
                level=logging.WARNING,
            )

    def _rows_by_class(self, min_points: int) -> dict[str, np.ndarray]:
        """Rows of the index that may be drawn, for each class of ``sample_groups``."""
        enough = self.database.index['num_points'] >= min_points
        labels = self.database.index['label']
        stored = {name: label for label, name in enumerate(self.database.classes)}
        return {
            name: np.flatnonzero((labels == stored.get(name, -1)) & enough).astype(np.int32)
            for name in self.sample_groups
        }

    def draw(self, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Objects whose boxes, from above, overlap neither those of a sample nor each other.

        Args:
            boxes: (N, 9) of the sample, metres, in the LiDAR frame; ignored objects among them.
            labels: (N,), -1 for ignored objects.

        Returns:
            (K,) rows of the index: of each class as many as the sample lacks of ``sample_groups``,
            times ``rate``, less those that overlap.
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
        """(K,) int64: labels, by ``classes``, of rows that were drawn."""
        names = self.database.classes
        return np.array([self.classes.index(names[label]) for label in objects['label']], np.int64)

    def seen_by(self, objects: np.ndarray, camera: str) -> np.ndarray:
        """(K,) bool: of which objects there is a patch of a camera."""
        if camera not in self.database.cameras:
            return np.zeros(len(objects), dtype=bool)
        return objects['patch_bytes'][:, self.database.cameras.index(camera)] > 0

    def load(self, row: np.void, cameras: Collection[str], results: Mapping) -> StoredObject:
        """The points of an object where it stood, with the channels of ``use_dim``, and patches.

        Args:
            row: one that was drawn.
            cameras: whose patches are wanted.
            results: the sample that they are for, which errors name.

        Raises:
            MissingFileError: the file does not exist.
            DamagedFileError: it cannot be read.
        """
        with reading(results, str(self.database.shard(row)), 'an object to paste of'):
            stored = self.database.read(row, cameras)
        return stored._replace(points=stored.points[:, self.use_dim])


def _free(boxes: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """(K,) bool: which of (K, 9) boxes have a place of their own; the earlier of two gets it."""
    places = np.concatenate([boxes, drawn])
    from_above = torch.as_tensor(places[:, [0, 1, 3, 4, 6]]).float()
    overlap = box_iou_rotated(from_above[len(boxes) :], from_above).numpy() > 0
    taken = np.arange(len(places)) < len(boxes)
    for index, overlapped in enumerate(overlap, len(boxes)):
        taken[index] = not overlapped[taken].any()
    return taken[len(boxes) :]
