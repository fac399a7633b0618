"""Maker of the object database, which works in several processes and can be resumed.

A shard holds the objects of a few consecutive samples. It is finished when its rows are written,
which happens last; finished shards are kept when the same call is repeated. When all shards are
finished, their rows become the index, and the folder gets its final name. Files are written
atomically.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from mmcv.ops import points_in_boxes_cpu
from mmengine.logging import print_log

from ..datasets import CmtDataset
from ..datasets.infos import Infos
from ..datasets.object_sampling.database import (
    FORMAT,
    INDEX_FILE,
    SETTINGS_FILE,
    SHARD_FILE,
    UNFINISHED,
    index_dtype,
)
from ..datasets.object_sampling.views import view_boxes
from ..datasets.transforms import (
    ComputeLidar2Img,
    LoadMultiViewImages,
    LoadPointsOfKeyframe,
    LoadPointsOfSweeps,
)
from ..progress import Progress
from ..samples import sample_name
from .worker_pool import worker_pool

SAMPLES_PER_SHARD = 16
# Number of sweeps of the objects' points, as in MMDetection3D's database.
SWEEPS = 10
# Minimum size of a patch along both sides, pixels.
MIN_PATCH_SIZE = 10
JPEG_QUALITY = 95
ROWS_FOLDER, ROWS_FILE = 'rows', '{:05d}.npy'


def collect_objects(
    root: Path,
    folder: Path,
    infos: Infos,
    *,
    data_prefix: Mapping[str, str] | None = None,
    cameras: bool = True,
    workers: int = 1,
    overwrite: bool = False,
) -> bool:
    """Makes the object database of some samples, or finishes an interrupted one.

    Args:
        root: data root of the samples.
        folder: folder of the database; until it is finished, it has the suffix ``.unfinished``.
        infos: content of an info file, with annotations.
        data_prefix: as for :class:`.CmtDataset`.
        cameras: whether to store image patches; without, no images are read.
        workers: number of processes, which does not change the result.
        overwrite: whether to replace a finished database, or an unfinished one of other samples.

    Returns:
        False if the finished database of these samples existed already.

    Raises:
        FileExistsError: the folder is not the database of these samples.
        ValueError: a sample has no annotations.
        SampleError: a file of a sample is missing or damaged.
    """
    known = [(label, name) for name, label in infos.metainfo['categories'].items() if label >= 0]
    lacking = [sample_name(entry) for entry in infos.entries if 'instances' not in entry]
    if lacking:
        raise ValueError(f'sample {lacking[0]} has no instances, of which the database is made')
    names = []
    if cameras:
        names = list(dict.fromkeys(name for e in infos.entries for name in e.get('images') or ()))
    settings = dict(
        format=FORMAT,
        classes=[name for _, name in sorted(known)],
        cameras=names,
        samples=len(infos.entries),
        sweeps=SWEEPS,
        annotations=_digest(infos.entries),
    )
    if folder.exists() and not overwrite:
        _check_same(folder, settings)
        print_log(f'{folder} is finished already', logger='current')
        return False
    unfinished = _open_unfinished(folder, settings, overwrite=overwrite)
    if not (unfinished / INDEX_FILE).is_file():
        tasks = _tasks(root, infos, data_prefix or {}, names, unfinished)
        _make_shards(tasks, workers)
        _save(unfinished / INDEX_FILE, np.concatenate([np.load(task.rows) for task in tasks]))
    _publish(unfinished, folder)
    return True


def _tasks(
    root: Path, infos: Infos, data_prefix: Mapping[str, str], cameras: Sequence[str], folder: Path
) -> list[_Task]:
    """Returns the shards to make; what samples have is found over all of them."""
    entries = infos.entries
    shared = dict(
        root=root,
        data_prefix=data_prefix,
        cameras=cameras,
        sweeps=any('lidar_sweeps' in entry for entry in entries),
        validated=any('bbox_3d_isvalid' in i for entry in entries for i in entry['instances']),
        folder=folder,
    )
    starts = range(0, len(entries), SAMPLES_PER_SHARD)
    return [
        _Task(
            number=number,
            first_sample=start,
            infos=infos._replace(entries=entries[start : start + SAMPLES_PER_SHARD]),
            **shared,
        )
        for number, start in enumerate(starts)
    ]


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Shard to make."""

    number: int
    first_sample: int
    infos: Infos
    root: Path
    data_prefix: Mapping[str, str]
    cameras: Sequence[str]
    sweeps: bool
    """whether any sample has past sweeps"""
    validated: bool
    """whether any object says whether it is valid"""
    folder: Path

    @property
    def shard(self) -> Path:
        return self.folder / SHARD_FILE.format(self.number)

    @property
    def rows(self) -> Path:
        return self.folder / ROWS_FOLDER / ROWS_FILE.format(self.number)


def _digest(infos: Sequence[dict]) -> str:
    """Returns a hash of the samples' tokens and annotations."""
    digest = hashlib.sha256()
    for info in infos:
        digest.update(sample_name(info).encode())
        boxes = [
            [*i['bbox_3d'], i['bbox_label_3d'], i.get('num_lidar_pts', -1)]
            for i in info['instances']
        ]
        digest.update(np.array(boxes, dtype=np.float64).tobytes())
    return digest.hexdigest()


def _check_same(folder: Path, settings: dict) -> None:
    file = folder / SETTINGS_FILE
    if not file.is_file() or json.loads(file.read_text()) != settings:
        raise FileExistsError(
            f'{folder} is not the database of these samples: move it elsewhere, or replace it with '
            '--overwrite'
        )


def _open_unfinished(folder: Path, settings: dict, *, overwrite: bool) -> Path:
    """Returns the folder of an unfinished database, new or to continue."""
    unfinished = folder.with_name(folder.name + UNFINISHED)
    file = unfinished / SETTINGS_FILE
    if file.is_file():
        try:
            _check_same(unfinished, settings)
            return unfinished
        except FileExistsError:
            if not overwrite:
                raise
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / ROWS_FOLDER).mkdir(parents=True)
    with _whole_file(file) as opened:
        opened.write(json.dumps(settings, indent=1).encode() + b'\n')
    return unfinished


def _make_shards(tasks: Sequence[_Task], workers: int) -> None:
    """Makes the missing shards, with a progress bar over samples."""
    missing = [task for task in tasks if not task.rows.is_file()]
    if not missing:
        return
    if len(missing) < len(tasks):
        finished = len(tasks) - len(missing)
        print_log(f'{finished} of {len(tasks)} shards are finished already', logger='current')
    progress = Progress('objects of samples', sum(len(task.infos.entries) for task in missing))
    try:
        with worker_pool(min(workers, len(missing))) as mapper:
            for samples in mapper(_make_shard, missing):
                progress.move(steps=samples)
    finally:
        progress.close()


def _publish(unfinished: Path, folder: Path) -> None:
    """Gives the database its final name, in place of an older one."""
    if folder.exists():
        shutil.rmtree(folder)
    shutil.rmtree(unfinished / ROWS_FOLDER, ignore_errors=True)
    for part in unfinished.glob('*.part'):  # of processes that were killed
        part.unlink()
    unfinished.rename(folder)


def _make_shard(task: _Task) -> int:
    """Writes a shard and then its rows; returns the number of samples."""
    cameras, dataset = task.cameras, _dataset(task)
    rows = []
    with _whole_file(task.shard) as file:
        for sample, info in enumerate(task.infos.entries, task.first_sample):
            results = dataset.pipeline(dataset.parse_data_info(copy.deepcopy(info)))
            for label, box, points, patches in _objects(results):
                sizes = [len(patches.get(camera, b'')) for camera in cameras]
                rows.append((label, sample, len(points), box, task.number, file.tell(), sizes))
                file.write(points.tobytes())
                file.writelines(patches[camera] for camera in cameras if camera in patches)
    _save(task.rows, np.array(rows, dtype=index_dtype(len(cameras))))
    return len(task.infos.entries)


def _dataset(task: _Task) -> CmtDataset:
    """Returns a dataset with a pipeline that loads points of all sweeps and images."""
    every_channel = dict(use_dim=[0, 1, 2, 3, 4], load_dim=5)
    images = [LoadMultiViewImages(), ComputeLidar2Img()] if task.cameras else []
    dataset = CmtDataset(
        data_root=str(task.root),
        ann_file='',
        data_prefix=task.data_prefix,
        modality=dict(use_lidar=True, use_camera=bool(task.cameras)),
        use_valid_flag=task.validated,
        lazy_init=True,
        pipeline=[
            LoadPointsOfKeyframe(coord_type='LIDAR', **every_channel),
            LoadPointsOfSweeps(
                sweeps_num=SWEEPS,
                pad_empty_sweeps=task.sweeps,
                remove_close=True,
                test_mode=True,  # the latest sweeps, not a random choice
                **every_channel,
            ),
            *images,
        ],
    )
    dataset.declare(task.infos.metainfo)
    return dataset


def _objects(results: Mapping) -> Iterator[tuple[int, np.ndarray, np.ndarray, dict[str, bytes]]]:
    """Yields label, box (9,), points (N, 5) and encoded patches by camera of each object.

    Objects of ignored classes are left out: their label -1 would index the last class.
    """
    known = results['ann_info']['gt_labels_3d'] >= 0
    labels = results['ann_info']['gt_labels_3d'][known]
    if not len(labels):
        return
    boxes = results['ann_info']['gt_bboxes_3d'][known]
    points = results['points'].tensor
    inside = points_in_boxes_cpu(points[None, :, :3].contiguous(), boxes.tensor[None, :, :7])[0]
    patches = _cut_patches(results, boxes.corners.numpy())
    for label, box, within, seen in zip(
        labels, boxes.tensor.numpy(), inside.T.bool(), patches, strict=True
    ):
        own = points[within].numpy()
        own[:, :3] -= box[:3]
        yield label, box, own, seen


def _cut_patches(results: Mapping, corners: np.ndarray) -> list[dict[str, bytes]]:
    """Returns the encoded patches by camera of each of the boxes (N, 8, 3)."""
    patches: list[dict[str, bytes]] = [{} for _ in corners]
    views = [results.get(key, ()) for key in ('camera_names', 'img', 'lidar2img')]
    for name, image, lidar2img in zip(*views, strict=True):
        view = view_boxes(corners, lidar2img, image.shape[:2], min_size=MIN_PATCH_SIZE)
        for box in view.far_to_near():
            _, encoded = cv2.imencode(
                '.jpg', image[view.window(box)], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
            )
            patches[box][name] = encoded.tobytes()
    return patches


def _save(path: Path, rows: np.ndarray) -> None:
    with _whole_file(path) as file:
        np.save(file, rows)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file under a name of this process, which gets its own when it is on the disk."""
    part = path.with_name(f'{path.name}.{os.getpid()}.part')
    with part.open('wb') as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
