"""One training sample, the same for every side of a comparison: of a data root, or at random."""

from pathlib import Path

import numpy as np
import torch
from mmdet3d.registry import DATASETS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ..usage_error import UsageError
from .clouds import random_cloud

INFO_FILE = 'nuscenes_infos_train.pkl'
_RANDOM_STEPS = (
    'DrawIndex',
    'RandomFailure',
    'JointObjectSample',
    'GlobalRotScaleTransAll',
    'RandomFlip3DAll',
    'PointShuffle',
)
_NUM_CAMERAS = 6


def first_batch(cfg: Config, data_root: str) -> dict:
    """The first training sample of a data root, as a batch, without random augmentation.

    Args:
        cfg: says how a sample is loaded.
        data_root: of a database in nuScenes' format with info files.
    """
    dataset = cfg.train_dataloader.dataset
    while 'dataset' in dataset:  # out of wrappers
        dataset = dataset.dataset
    pipeline = [
        _without_chance(step) for step in dataset.pipeline if step.type not in _RANDOM_STEPS
    ]
    settings = dict(dataset, data_root=data_root, ann_file=INFO_FILE, pipeline=pipeline)
    return pseudo_collate([DATASETS.build(settings)[0]])


def resize_images(cfg: Config, image_size: tuple[int, int]) -> None:
    """Have the pipelines of a config bring images to another size (height, width)."""
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        dataset = loader.dataset
        while 'dataset' in dataset:
            dataset = dataset.dataset
        for step in dataset.pipeline:
            if step.type == 'ResizeCropFlipImage':
                step.final_dim = tuple(image_size)


def check_samples(data_root: str) -> str:
    """The data root, once it is seen that :func:`first_batch` finds its info file there.

    Raises:
        UsageError: it does not.
    """
    if not Path(data_root, INFO_FILE).is_file():
        raise UsageError(
            f'{Path(data_root, INFO_FILE)} does not exist (in {Path.cwd()}); to make it: '
            f'python tools/make_frame_tables.py FOLDER --out {data_root}; or use a sample '
            'made at random: --synthetic'
        )
    return data_root


def random_batch(cfg: Config, *, num_points: int = 30_000, num_boxes: int = 30) -> dict:
    """One sample of random points, images and boxes as a batch, in the sizes of the config.

    Points are as dense as a spinning sensor sees them, ever sparser with distance, but fill more
    voxels than real surfaces do. Cameras look in six directions from the origin.

    Args:
        cfg: gives the range of the points and the size of the images.
        num_points: some of them outside of the range.
        num_boxes: inside.
    """
    limits = torch.tensor(cfg.model.pts_bbox_head.point_cloud_range)
    height, width = _image_size(cfg)
    sample = Det3DDataSample(
        metainfo={
            'lidar2img': _ring_of_cameras(height, width),
            'box_type_3d': LiDARInstance3DBoxes,
        }
    )
    num_classes = len(cfg.class_names)
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=_random_boxes(num_boxes, limits),
        labels_3d=torch.arange(num_boxes) % num_classes,
    )
    images = torch.randint(0, 255, (_NUM_CAMERAS, 3, height, width), dtype=torch.uint8)
    return {
        'inputs': {'points': [random_cloud(num_points, limits)], 'img': [images]},
        'data_samples': [sample],
    }


def _without_chance(step: ConfigDict) -> dict:
    return dict(step, training=False) if step.type == 'ResizeCropFlipImage' else dict(step)


def _image_size(cfg: Config) -> tuple[int, int]:
    """(height, width) that the test pipeline brings images to."""
    steps = cfg.test_dataloader.dataset.pipeline
    return next(tuple(step.final_dim) for step in steps if step.type == 'ResizeCropFlipImage')


def _random_boxes(num_boxes: int, limits: Tensor) -> LiDARInstance3DBoxes:
    """Cars by their size, anywhere in the range."""
    place = limits[:3] + torch.rand(num_boxes, 3) * (limits[3:] - limits[:3])
    size = torch.tensor([4.6, 1.9, 1.7]).expand(num_boxes, -1)
    yaw = (torch.rand(num_boxes, 1) * 2 - 1) * torch.pi
    velocity = torch.randn(num_boxes, 2)
    return LiDARInstance3DBoxes(torch.cat([place, size, yaw, velocity], dim=1), box_dim=9)


def _ring_of_cameras(height: int, width: int) -> np.ndarray:
    """(6, 4, 4) LiDAR -> pixel, a sixth of a turn apart, each with a view of 70 degrees."""
    focal = width / 2 / np.tan(np.radians(35))
    cam2img = np.eye(4)
    cam2img[:2, :3] = [[focal, 0, width / 2], [0, focal, height / 2]]
    matrices = []
    for yaw in np.arange(_NUM_CAMERAS) * 2 * np.pi / _NUM_CAMERAS:
        lidar2cam = np.eye(4)
        # Rows: right, down and ahead of a camera that looks along (cos yaw, sin yaw).
        lidar2cam[:3, :3] = [
            [np.sin(yaw), -np.cos(yaw), 0],
            [0, 0, -1],
            [np.cos(yaw), np.sin(yaw), 0],
        ]
        matrices.append(cam2img @ lidar2cam)
    return np.stack(matrices)
