"""Check of an info file against its files: fields, clouds, and whether boxes and sensors agree."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmcv.ops import points_in_boxes_cpu
from mmengine.logging import print_log

from ..datasets import CmtDataset
from ..datasets.infos import Infos, entry_problems, read_infos
from ..datasets.object_sampling.views import project
from ..datasets.reading import SampleError
from ..datasets.transforms import ComputeLidar2Img, LoadMultiViewImages, LoadPointsOfKeyframe

# Number of samples, evenly spaced, whose files are opened.
OPENED = 20
# Share of the boxes that must contain a point, and be in an image: a rig may have one camera.
LEAST_WITH_POINTS, LEAST_IN_IMAGES = 0.3, 0.05
# Lower part of a box in which points may be those of the ground.
GROUND_SHARE = 0.25
MOST_PROBLEMS = 20


class Agreement(NamedTuple):
    """Boxes of the opened samples."""

    boxes: int
    with_points: int
    in_images: int


def check_info_file(root: str | os.PathLike, name: str) -> None:
    """Checks an info file, and logs what it has.

    All entries are checked for their fields and for files that do not exist. Some are opened: the
    clouds must fit their columns, and most boxes contain points and appear in images, which they do
    not if a frame, a unit or the order of the numbers is wrong.

    Args:
        root: data root.
        name: info file in it.

    Raises:
        ValueError: there are problems; one line each.
    """
    root = Path(root)
    infos = read_infos(root / name)
    problems = [*_all_problems(root, infos)]
    if not problems:
        problems = [*_opened_problems(root, name, infos)]
    if problems:
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + ([f'and {more} more'] if more > 0 else [])
        raise ValueError(f'{root / name} has {len(problems)} problems:\n' + '\n'.join(shown))


def _all_problems(root: Path, infos: Infos) -> Iterator[str]:
    seen: set[str] = set()
    lidar = _has_lidar(infos)
    if not infos.entries:
        yield 'it has no samples'
    for number, entry in enumerate(infos.entries):
        name = f'sample {entry.get("token", number)}'
        annotated = 'instances' in infos.entries[0]
        for problem in entry_problems(
            entry, lidar=lidar, cameras=bool(entry.get('images')), annotated=annotated
        ):
            yield f'{name}: {problem}'
        if entry.get('token', number) in seen:
            yield f'{name}: another sample has the same token'
        seen.add(entry.get('token', number))
        for path in _paths(entry):
            if not (root / path).is_file():
                yield f'{name}: {root / path} does not exist'
        for place, instance in enumerate(entry.get('instances') or ()):
            yield from (f'{name}, instance {place}: {p}' for p in _box_problems(instance, infos))


def _has_lidar(infos: Infos) -> bool:
    """Whether any sample has a cloud; all need one then."""
    return any(entry.get('lidar_points') for entry in infos.entries)


def _paths(entry: Mapping) -> Iterator[str]:
    if entry.get('lidar_points', {}).get('lidar_path'):
        yield entry['lidar_points']['lidar_path']
    for camera in (entry.get('images') or {}).values():
        if 'img_path' in camera:
            yield camera['img_path']
    for sweep in entry.get('lidar_sweeps', ()):
        yield sweep['lidar_points']['lidar_path']


def _box_problems(instance: Mapping, infos: Infos) -> Iterator[str]:
    labels = set(infos.metainfo['categories'].values())
    if instance.get('bbox_label_3d') not in {-1, *labels}:
        yield f'its label is {instance.get("bbox_label_3d")}; the categories have {sorted(labels)}'
    box = np.array(instance.get('bbox_3d', ()), dtype=np.float64)
    if len(box) == 7 and not (np.isfinite(box).all() and (box[3:6] > 0).all()):
        yield f'bbox_3d is {box.tolist()}; all numbers must be finite and the sizes positive'


def _opened_problems(root: Path, name: str, infos: Infos) -> Iterator[str]:
    lidar = _has_lidar(infos)
    cameras = all(entry.get('images') for entry in infos.entries)
    dataset = CmtDataset(
        data_root=str(root),
        ann_file=name,
        test_mode=True,
        modality=dict(use_lidar=lidar, use_camera=cameras),
        pipeline=[
            *([LoadPointsOfKeyframe()] if lidar else []),
            *([LoadMultiViewImages(), ComputeLidar2Img()] if cameras else []),
        ],
    )
    found = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, OPENED).astype(int)):
        try:
            found.append(_compare(dataset.pipeline(dataset.get_data_info(int(index)))))
        except SampleError as error:
            yield str(error)
    boxes, with_points, in_images = np.sum(found, axis=0) if found else (0, 0, 0)
    _log_summary(infos, Agreement(boxes, with_points, in_images), len(found))
    order = 'bbox_3d is not x, y, z of the centre, length, width, height, yaw in metres and radians'
    if lidar and with_points < LEAST_WITH_POINTS * boxes:
        yield (
            f'only {with_points} of {boxes} opened boxes contain a point: the boxes are not in the '
            f'LiDAR frame, or {order}'
        )
    if cameras and in_images < LEAST_IN_IMAGES * boxes:
        yield (
            f'the centres of only {in_images} of {boxes} opened boxes are in an image: lidar2cam '
            'does not take LiDAR points in metres to the camera (x right, y down, z forward), or '
            'cam2img is not of the size of the files'
        )


def _compare(results: Mapping) -> Agreement:
    boxes = results.get('eval_ann_info', {}).get('gt_bboxes_3d')
    if boxes is None or not len(boxes):
        return Agreement(0, 0, 0)
    cloud = results['points'].tensor[:, :3] if 'points' in results else torch.zeros(0, 3)
    points = cloud[None].contiguous()
    upper = boxes.tensor[None, :, :7].clone()  # without the ground, which any box contains
    upper[..., 2] += GROUND_SHARE * upper[..., 5]
    upper[..., 5] *= 1 - GROUND_SHARE
    inside = points_in_boxes_cpu(points, upper)[0].any(dim=0)
    seen = np.zeros(len(boxes), dtype=bool)
    for image, matrix in zip(results.get('img', ()), results.get('lidar2img', ()), strict=True):
        pixels, depth = project(boxes.gravity_center.numpy(), matrix)
        seen |= (depth > 0) & ((pixels >= 0) & (pixels < image.shape[1::-1])).all(axis=1)
    return Agreement(len(boxes), int(inside.sum()), int(seen.sum()))


def _log_summary(infos: Infos, found: Agreement, opened: int) -> None:
    names = {label: name for name, label in infos.metainfo['categories'].items()}
    instances = [i for entry in infos.entries for i in entry.get('instances', ())]
    counts = Counter(names.get(i['bbox_label_3d'], 'ignored') for i in instances)
    scenes = {entry.get('scene') for entry in infos.entries}
    reach = np.abs([i['bbox_3d'][:2] for i in instances] or [[0.0, 0.0]])
    print_log(
        f'{len(infos.entries)} samples of {len(scenes)} scenes; boxes: '
        f'{", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"}; '
        f'99 % of their centres within {np.quantile(reach, 0.99):.0f} m along x and y; of '
        f'{found.boxes} boxes in {opened} opened samples {found.with_points} contain points and '
        f'{found.in_images} are in an image',
        logger='current',
    )
