"""Image patches for mmdet3d's database of objects, which holds their points.

Beside the points of an object, ``…_gt_database/0_car_3.bin``, stands a patch for every camera that
sees it, ``0_car_3_CAM_FRONT.jpg``: the rectangle round its box, as far as it is in the image. The
cameras are named by ``patches`` in the object's entry of ``…_dbinfos_train.pkl``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.fileio import dump, load
from mmengine.utils import track_iter_progress

from ...files import replacing
from ..transforms import ComputeLidar2Img
from .views import view_boxes

# Pixels along both sides; a smaller patch shows nothing.
MIN_SIZE = 10
_QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]


def patch_path(points_path: str, camera: str) -> str:
    """The patch of a camera, by the file of the object's points."""
    return f'{points_path.removesuffix(".bin")}_{camera}.jpg'


def add_patches(root: Path, info_file: str, objects_file: str) -> None:
    """Cut the patches of all objects, and name their cameras in the file of the objects.

    Args:
        root: data root of a nuScenes-format database, with both files.
        info_file: of the samples that the objects are from, in mmdet3d's v1.1 format.
        objects_file: as mmdet3d's ``create_groundtruth_database`` makes it; written anew.
    """
    objects = load(root / objects_file)
    by_sample = defaultdict(list)
    for entry in (entry for entries in objects.values() for entry in entries):
        entry['patches'] = ()
        by_sample[entry['image_idx']].append(entry)
    infos = load(root / info_file)['data_list']
    for info in track_iter_progress([info for info in infos if info['sample_idx'] in by_sample]):
        _cut_patches(root, info['images'], by_sample[info['sample_idx']])
    with replacing(root / objects_file) as temporary:
        dump(objects, temporary)


def _cut_patches(root: Path, cameras: Mapping[str, Mapping], entries: Sequence[dict]) -> None:
    """Write the patches of all objects of a sample."""
    boxes = np.stack([entry['box3d_lidar'] for entry in entries])
    corners = LiDARInstance3DBoxes(boxes, box_dim=boxes.shape[1]).corners.numpy()
    lidar2img = ComputeLidar2Img()(_calibration(cameras.values()))['lidar2img']
    for (name, camera), matrix in zip(cameras.items(), lidar2img, strict=True):
        image = mmcv.imread(str(root / 'samples' / name / camera['img_path']))
        view = view_boxes(corners, matrix, image.shape[:2], min_size=MIN_SIZE)
        for box in view.far_to_near():
            path = root / patch_path(entries[box]['path'], name)
            mmcv.imwrite(image[view.window(box)], str(path), _QUALITY)
            entries[box]['patches'] += (name,)


def _calibration(cameras: Iterable[Mapping]) -> dict:
    return {key: [camera[key] for camera in cameras] for key in ('cam2img', 'lidar2cam')}
