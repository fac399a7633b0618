"""A frame under a sensor failure, as loaded by the test pipeline before any augmentation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from mmdet3d.registry import TRANSFORMS
from mmengine.dataset import BaseDataset, Compose

from ..datasets.failures import health_maps
from .scene_boxes import SceneBox, scene_boxes

LOADERS = ('LoadPointsOfKeyframe', 'LoadPointsOfSweeps', 'LoadMultiViewImages', 'ComputeLidar2Img')
# Resolution of the health maps: cells along the range, patches along the height of an image.
CELLS, PATCHES = 128, 40
# Number of seeds that are tried until the failure is visible in the picture.
MOST_SEEDS = 200


class DamagedFrame(NamedTuple):
    """Sensor data, boxes and health maps of one frame."""

    points: np.ndarray
    """(N, 5), LiDAR frame of the keyframe, metres"""
    images: Mapping[str, np.ndarray]
    """(H, W, 3) uint8, RGB, as loaded, by camera"""
    lidar2img: Mapping[str, np.ndarray]
    """(4, 4) projections to pixels, by camera"""
    boxes: Sequence[SceneBox]
    """annotated boxes in the LiDAR frame"""
    lidar_health: np.ndarray
    """(h, w) health over the range, rows along y and columns along x"""
    camera_health: Mapping[str, np.ndarray]
    """(h, w) health of the patches, by camera"""
    failed: bool
    """whether a failure occurred"""


def load_damaged(
    dataset: BaseDataset,
    index: int,
    loaders: Sequence[dict],
    *,
    point_cloud_range: Sequence[float],
    failure: dict | None = None,
) -> DamagedFrame:
    """Load a frame.

    Args:
        dataset: dataset of the test data, with class names.
        index: index of the sample.
        loaders: configs of the steps that load points and images, from :func:`loaders_of`.
        point_cloud_range: range of the LiDAR's health map, metres.
        failure: config of the failure, or None.
    """
    info = dataset.get_data_info(index)
    annotated, boxes = info.get('eval_ann_info'), []
    if annotated is not None:
        classes = dataset.metainfo['classes']
        boxes = scene_boxes(annotated['gt_bboxes_3d'], annotated['gt_labels_3d'], classes)
    steps = [*([] if failure is None else [failure]), *copy.deepcopy(list(loaders))]
    results = Compose(steps)(info)
    health = health_maps(
        results,
        point_cloud_range=point_cloud_range,
        cell_size=[(point_cloud_range[3] - point_cloud_range[0]) / CELLS] * 2,
        patch_size=max(1, results.get('img_shape', (PATCHES,))[0] // PATCHES),
        samples=1,
    )
    names = results.get('camera_names', ())
    return DamagedFrame(
        points=results['points'].tensor.numpy(),
        images={
            name: image[..., ::-1]
            for name, image in zip(names, results.get('img', ()), strict=True)
        },
        lidar2img=dict(zip(names, results.get('lidar2img', ()), strict=True)),
        boxes=boxes,
        lidar_health=health['lidar'],
        camera_health=dict(zip(names, health['camera'], strict=True)),
        failed=bool(results.get('failures')),
    )


def loaders_of(pipeline: Sequence[dict]) -> list[dict]:
    """The steps of a pipeline that load points and images, in order.

    Raises:
        ValueError: the pipeline does not load both with loaders that apply failures.
    """
    steps = [step for step in pipeline if step['type'] in LOADERS]
    missing = [name for name in LOADERS if name not in [step['type'] for step in steps]]
    if missing and missing != ['LoadPointsOfSweeps']:
        raise ValueError(f'the test pipeline has no {missing}, which a picture of failures needs')
    return steps


def telling_seed(info: dict, failures: Sequence[dict], cameras: Sequence[str]) -> int:
    """First seed with which the failure is visible in the picture at all severities.

    It is 0 if there is none, for example for a stale frame at the start of a scene.

    Args:
        info: info of the sample, from the dataset.
        failures: configs of one failure at all severities.
        cameras: names of the cameras in the picture.
    """
    for seed in range(MOST_SEEDS):
        if all(_shows(info, dict(failure, seed=seed), cameras) for failure in failures):
            return seed
    return 0


def _shows(info: dict, failure: dict, cameras: Sequence[str]) -> bool:
    """Whether the failure reduces the health of the LiDAR or of one of the cameras."""
    grid = np.stack(np.meshgrid(*[np.linspace(-50, 50, 401)] * 2), axis=-1)
    for drawn in TRANSFORMS.build(failure)(copy.deepcopy(info))['failures']:
        health = [drawn.camera_health(name, (9, 16)).min() for name in cameras]
        if min([drawn.lidar_health(grid).min(), *health]) < 1:
            return True
    return False
