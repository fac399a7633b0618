"""A small head, with and without a router, and random batches for it."""

import numpy as np
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.cmt_aqr.geometry import VoxelGrid
from projects.cmt_aqr.head import CmtHead

RANGE = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
CLASSES = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
    'pedestrian', 'traffic_cone',
]  # fmt: skip
CODE_WEIGHTS = [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2]


def head_config(**changes):
    """The small head of the reference."""
    config = {
        'point_cloud_range': RANGE,
        'tasks': [CLASSES],
        'in_channels': 48,
        'hidden_dim': 32,
        'num_query': 24,
        'depth_num': 64,
        'transformer': {'num_layers': 2, 'num_heads': 4, 'feedforward_channels': 64},
        'box_coder': {
            'type': 'BoxCoder',
            'layout': 'released',
            'post_center_range': [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            'max_num': 20,
        },
        'assigner': {
            'type': 'mmdet.HungarianAssigner',
            'match_costs': [
                {'type': 'mmdet.FocalLossCost', 'weight': 2.0},
                {'type': 'mmdet3d.BBox3DL1Cost', 'weight': 0.25, 'code_weights': CODE_WEIGHTS[:8]},
            ],
        },
        'loss_cls': {'type': 'mmdet.FocalLoss', 'loss_weight': 2.0},
        'loss_bbox': {'type': 'mmdet.L1Loss', 'loss_weight': 0.25},
        'code_weights': CODE_WEIGHTS,
        'denoising': {},
    }
    return {**config, **changes}


def make_head(**changes):
    torch.manual_seed(0)
    return CmtHead(**head_config(**changes))


def samples_of(metas, boxes, labels):
    samples = []
    for meta, box, label in zip(metas, boxes, labels, strict=True):
        sample = Det3DDataSample(metainfo=meta)
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(box, box_dim=9), labels_3d=label
        )
        samples.append(sample)
    return samples


def random_batch(boxes=(3, 2), views=2, classes=10):
    """Features and samples of a batch, with a number of boxes in each sample."""
    bev = torch.randn(len(boxes), 48, 8, 8)
    images = torch.randn(len(boxes), views, 32, 4, 6)
    looks_along_x = np.array([[48.0, -50, 0, 0], [32, 0, -50, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    metas = [
        {
            'lidar2img': np.stack([looks_along_x] * views),
            'pad_shape': (64, 96),
            'box_type_3d': LiDARInstance3DBoxes,
        }
        for _ in boxes
    ]
    low = torch.tensor([-40.0, -40, -1, 1, 1, 1, -3, 0, 0])
    high = torch.tensor([40.0, 40, 1, 4, 4, 2, 3, 1, 1])
    truth = [low + torch.rand(count, 9) * (high - low) for count in boxes]
    labels = [torch.randint(0, classes, (count,)) for count in boxes]
    return bev, images, samples_of(metas, truth, labels)


# The maps of random_batch: 8 BEV cells of 13.5 m along each axis.
GRID = VoxelGrid(voxel_size=(1.6875, 1.6875, 8.0), shape=(1, 64, 64))


def aqr_config(routing='GateRouting', *, weights=(), scope=None, **changes):
    """Options of a router, of its weight generator and of a bias."""
    return {
        'windows': {'lidar': 3, 'camera': 2},
        'weight_generator': {
            'type': 'AQRWeightGenerator',
            'feedforward_channels': 32,
            **dict(weights),
        },
        'routing': routing and {'type': routing, **({'scope': scope} if scope else {})},
        **changes,
    }


def routed_head(*args, **options):
    return make_head(aqr=aqr_config(*args, **options), voxel_grid=GRID)


def wake(head):
    """Fill the router's last layer, which starts at zero."""
    for linear in head.router.aqr_weight_generator.to_weight.values():
        torch.nn.init.normal_(linear.weight)


def spy(module):
    """The keyword arguments of the latest call of a module."""
    seen = {}
    module.register_forward_pre_hook(
        lambda _, args, options: seen.update(options), with_kwargs=True
    )
    return seen


def with_health(batch, lidar=1.0, camera=1.0):
    """The batch and the health of all samples, a number or a map."""
    health = {
        'lidar': torch.as_tensor(lidar, dtype=torch.float32).expand(2, 8, 8),
        'camera': torch.as_tensor(camera, dtype=torch.float32).expand(2, 2, 4, 6),
    }
    return *batch, health


def assert_equal_boxes(ours, theirs, tolerance=1e-5):
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(
            mine.bboxes_3d.tensor, other.bboxes_3d.tensor, atol=tolerance, rtol=tolerance
        )
