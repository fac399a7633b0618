"""The whole chain from files to a batch, with samples that are whole, empty or damaged."""

import copy

import cv2
import numpy as np
import pytest
import torch
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope

from projects.cmt_aqr.data_preprocessor import CmtDataPreprocessor

RANGE = [-20.0, -20.0, -3.0, 20.0, 20.0, 3.0]
CLASSES = ['car', 'pedestrian']
META_KEYS = ('token', 'lidar2img', 'img_shape', 'box_type_3d')


def train_pipeline(*failures: dict) -> list[dict]:
    return [
        *failures,
        dict(type='LoadPointsOfKeyframe', coord_type='LIDAR', load_dim=5, use_dim=5),
        dict(type='LoadMultiViewImages'),
        dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
        dict(type='ComputeLidar2Img'),
        dict(type='GlobalRotScaleTransAll'),
        dict(type='RandomFlip3DAll'),
        dict(type='PointsRangeFilter', point_cloud_range=RANGE),
        dict(type='ObjectRangeFilter', point_cloud_range=RANGE),
        dict(type='ObjectNameFilter', classes=CLASSES),
        dict(type='PointShuffle'),
        dict(type='ResizeCropFlipImage', final_dim=(16, 40), zoom_lim=(0.45, 0.6)),
        dict(
            type='Pack3DDetInputs',
            keys=['points', 'img', 'gt_bboxes_3d', 'gt_labels_3d'],
            meta_keys=META_KEYS,
        ),
    ]


@pytest.fixture
def info(tmp_path) -> dict:
    rng = np.random.default_rng(0)
    cloud = rng.uniform(-15, 15, (200, 5)).astype(np.float32)
    cloud[:, 2] = 0
    cloud[:, 3:] = cloud[:, 3:].round().clip(min=0)
    cloud.tofile(tmp_path / 'cloud.bin')
    cameras = {}
    for i in range(3):
        path = tmp_path / f'{i}.png'
        cv2.imwrite(str(path), rng.integers(1, 255, (45, 80, 3), dtype=np.uint8))
        cam2img = [[40.0, 0, 40], [0, 40, 20], [0, 0, 1]]
        cameras[f'CAM_{i}'] = dict(
            img_path=str(path), cam2img=cam2img, lidar2cam=np.eye(4).tolist()
        )
    boxes = np.array([[5.0, 5, -1, 4, 2, 2, 0, 1, 0], [-5, 5, -1, 1, 1, 2, 0, 0, 0]])
    return dict(
        token='t',
        lidar_points=dict(lidar_path=str(tmp_path / 'cloud.bin')),
        images=cameras,
        box_type_3d=LiDARInstance3DBoxes,
        ann_info=dict(
            gt_bboxes_3d=LiDARInstance3DBoxes(torch.tensor(boxes).float(), box_dim=9),
            gt_labels_3d=np.array([0, 1]),
        ),
    )


def changed(info: dict, what: str) -> dict:
    info = copy.deepcopy(info)
    truth = info['ann_info']
    if what == 'no boxes':
        truth['gt_bboxes_3d'] = truth['gt_bboxes_3d'][:0]
        truth['gt_labels_3d'] = truth['gt_labels_3d'][:0]
    elif what == 'fewer cameras':
        del info['images']['CAM_1']
    elif what != 'whole':
        path = info['lidar_points']['lidar_path']
        cloud = np.fromfile(path, np.float32).reshape(-1, 5)
        cloud[::2] = np.nan
        info['lidar_points']['lidar_path'] = f'{path}.{what}'
        (cloud[:0] if what == 'no points' else cloud).tofile(f'{path}.{what}')
    return info


KINDS = ('whole', 'no boxes', 'no points', 'NaN points', 'fewer cameras')


@pytest.mark.parametrize('dropped', [None, 'lidar', 'camera'])
def test_batch_of_all_kinds(info, dropped):
    failures = dict(lidar=[dict(type='LidarDrop')], camera=[dict(type='CameraDrop')])
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        pipeline = Compose(train_pipeline(*failures.get(dropped, ())))
        batch = pseudo_collate([pipeline(changed(info, kind)) for kind in KINDS])
    module = CmtDataPreprocessor(
        voxel_layer=dict(
            max_num_points=5,
            voxel_size=[1.0, 1.0, 6.0],
            point_cloud_range=RANGE,
            max_voxels=(500, 500),
        ),
        mean=[0.0] * 3,
        std=[255.0] * 3,
    )
    out = module(batch, training=True)
    counts = [len(points) for points in out['inputs']['points']]
    if dropped == 'lidar':
        assert counts == [0] * 5
        assert len(out['inputs']['voxels']['voxels']) == 0
    else:
        assert counts[0] > 100
        assert counts[2] == 0
        assert 0 < counts[3] <= 100
        assert set(out['inputs']['voxels']['coors'][:, 0].tolist()) == {0, 1, 3, 4}
    imgs = out['inputs']['imgs']
    assert imgs.shape == (5, 3, 3, 32, 64)
    shown = imgs.abs().amax(dim=(2, 3, 4)) > 0
    assert shown.tolist() == (
        [[False] * 3] * 5 if dropped == 'camera' else [[True] * 3] * 4 + [[True, True, False]]
    )
    for sample, kind in zip(out['data_samples'], KINDS, strict=True):
        assert sample.pad_shape == (32, 64)
        assert sample.lidar2img.shape == (2 if kind == 'fewer cameras' else 3, 4, 4)
        assert len(sample.gt_instances_3d) == (0 if kind == 'no boxes' else 2)


def test_same_seed_same_sample(info):
    def run() -> dict:
        np.random.seed(5)
        torch.manual_seed(5)
        return pipeline(copy.deepcopy(info))

    with DefaultScope.overwrite_default_scope('mmdet3d'):
        pipeline = Compose(train_pipeline())
    first, second = run(), run()
    assert first['inputs']['img'].equal(second['inputs']['img'])
    assert first['inputs']['points'].equal(second['inputs']['points'])
    assert np.array_equal(first['data_samples'].lidar2img, second['data_samples'].lidar2img)
