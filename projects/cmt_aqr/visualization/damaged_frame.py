"""One frame under a sensor failure, as the model's pipeline would load it, before augmentation."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from mmdet3d.evaluation.metrics.nuscenes_metric import output_to_nusc_box
from mmdet3d.registry import TRANSFORMS
from mmengine.dataset import BaseDataset, Compose

from ..datasets.failures import health_maps
from .scene_boxes import Kind, SceneBox

LOADERS = ('LoadPointsOfKeyframe', 'LoadPointsOfSweeps', 'LoadMultiViewImages', 'ComputeLidar2Img')
# Cells of the health maps along the range, and patches along the height of an image.
CELLS, PATCHES = 128, 40
# How many seeds are tried to find one by which the frame is damaged where it shows.
MOST_SEEDS = 200


class DamagedFrame(NamedTuple):
    """What is left of one frame."""

    points: np.ndarray
    """(N, 5), LiDAR frame of the keyframe, metres"""
    images: Mapping[str, np.ndarray]
    """by camera, (H, W, 3) uint8, RGB, as loaded"""
    lidar2img: Mapping[str, np.ndarray]
    """by camera, (4, 4), to the pixels of its image"""
    boxes: Sequence[SceneBox]
    """annotated, LiDAR frame"""
    lidar_health: np.ndarray
    """(h, w), over the range, rows along y and columns along x"""
    camera_health: Mapping[str, np.ndarray]
    """by camera, (h, w)"""
    failed: bool
    """whether a failure was drawn"""


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
        dataset: of the test data, with class names.
        index: of the sample.
        loaders: configs of the loaders of points and images, such as `loaders_of` finds.
        point_cloud_range: metres, of the map of health.
        failure: config of the failure, or None.
    """
    info = dataset.get_data_info(index)
    boxes = _boxes(info, dataset.metainfo['classes'])
    steps = [*([] if failure is None else [failure]), *copy.deepcopy(list(loaders))]
    results = Compose(steps)(info)
    health = health_maps(
        results,
        point_cloud_range=point_cloud_range,
        cell_size=[(point_cloud_range[3] - point_cloud_range[0]) / CELLS] * 2,
        patch_size=max(1, results['img_shape'][0] // PATCHES),
        samples=1,
    )
    names = results['camera_names']
    return DamagedFrame(
        points=results['points'].tensor.numpy(),
        images={name: image[..., ::-1] for name, image in zip(names, results['img'], strict=True)},
        lidar2img=dict(zip(names, results['lidar2img'], strict=True)),
        boxes=boxes,
        lidar_health=health['lidar'],
        camera_health=dict(zip(names, health['camera'], strict=True)),
        failed=bool(results.get('failures')),
    )


def loaders_of(pipeline: Sequence[dict]) -> list[dict]:
    """The steps of a pipeline that load points and images, in their order.

    Raises:
        ValueError: it does not load both, or with other loaders than those that apply failures.
    """
    steps = [step for step in pipeline if step['type'] in LOADERS]
    missing = [name for name in LOADERS if name not in [step['type'] for step in steps]]
    if missing and missing != ['LoadPointsOfSweeps']:
        raise ValueError(f'the test pipeline has no {missing}, which a picture of failures needs')
    return steps


def telling_seed(info: dict, failures: Sequence[dict], cameras: Sequence[str]) -> int:
    """The first seed by which a frame fails, at all severities, in what a picture shows.

    0 if there is none: a stale frame in the first keyframe of a scene, say.

    Args:
        info: of the sample, as the dataset gives it.
        failures: configs of one failure at all severities.
        cameras: that the picture shows.
    """
    for seed in range(MOST_SEEDS):
        if all(_shows(info, dict(failure, seed=seed), cameras) for failure in failures):
            return seed
    return 0


def _shows(info: dict, failure: dict, cameras: Sequence[str]) -> bool:
    """Whether the LiDAR or one of the cameras loses any health."""
    grid = np.stack(np.meshgrid(*[np.linspace(-50, 50, 401)] * 2), axis=-1)
    for drawn in TRANSFORMS.build(failure)(copy.deepcopy(info))['failures']:
        health = [drawn.camera_health(name, (9, 16)).min() for name in cameras]
        if min([drawn.lidar_health(grid).min(), *health]) < 1:
            return True
    return False


def _boxes(info: Mapping, classes: Sequence[str]) -> list[SceneBox]:
    """The annotated boxes of the classes."""
    annotated = info['eval_ann_info']
    known = annotated['gt_labels_3d'] >= 0
    labels = annotated['gt_labels_3d'][known]
    boxes, _ = output_to_nusc_box(
        dict(
            bboxes_3d=annotated['gt_bboxes_3d'][known],
            scores_3d=torch.ones(len(labels)),
            labels_3d=torch.from_numpy(labels),
        )
    )
    return [SceneBox(classes[box.label], Kind.TRUTH, box) for box in boxes]
