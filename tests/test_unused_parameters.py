"""Every parameter that trains gets a gradient in every step, whatever the batch lacks.

DistributedDataParallel waits for all of them, so the configs do without
``find_unused_parameters``, which searches the graph in each step.
"""

from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from projects.cmt_aqr.doctor.random_sample import random_batch

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
# What the full-size configs of one sensor change, by what they pack.
ONE_SENSOR = {
    'points': dict(
        data_preprocessor=dict(mean=None, std=None),
        img_backbone=None,
        img_neck=None,
        pts_bbox_head=dict(modalities=('lidar',)),
    ),
    'img': dict(
        data_preprocessor=dict(voxel_layer=None),
        **dict.fromkeys(('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck')),
        pts_bbox_head=dict(
            modalities=('camera',),
            in_channels=None,
            point_cloud_range=[-25.6, -25.6, -3.0, 25.6, 25.6, 3.0],
        ),
    ),
}
# What no tiny config has, by its name: the config that it changes, and how.
VARIANTS = {
    'necks alone': ('cmt/cmt_tiny_synthetic.py', dict(pts_bbox_head=dict(frozen=True))),
    'voxel encoder with weights': (
        'cmt/cmt_tiny_synthetic.py',
        dict(
            pts_voxel_encoder=dict(_delete_=True, type='HardVFE', in_channels=5, feat_channels=[5])
        ),
    ),
    'planner that sees nothing': (
        'cmt/cmt_tiny_synthetic_plan.py',
        dict(planner=dict(type='ActionQueryHead', perception='zeroed')),
    ),
}
# Points and boxes of each of two samples.
BATCHES = dict(
    one_sample_is_empty=[(2000, 3), (0, 0)],
    nothing=[(0, 0), (0, 0)],
)


def tiny() -> Config:
    return Config.fromfile(FOLDER / 'cmt/cmt_tiny_synthetic.py')


def families() -> list:
    """One config of each kind of model and input; many differ in data or schedule alone.

    MMDetection3D's CenterPoint, which pretrains a LiDAR branch, does not train without points.
    """
    seen, params = [], []
    for path in sorted(FOLDER.glob('cmt*/*tiny*.py')):
        cfg = Config.fromfile(path)
        if cfg.model.type == 'CenterPoint':
            continue
        kind = (cfg.model.to_dict(), packed(cfg))
        if kind not in seen:
            seen.append(kind)
            params.append(pytest.param(cfg, id=path.stem))
    for name, (path, model) in VARIANTS.items():
        cfg = Config.fromfile(FOLDER / path)
        cfg.merge_from_dict(dict(model=model))
        params.append(pytest.param(cfg, id=name))
    for key, model in ONE_SENSOR.items():
        cfg = tiny()
        cfg.merge_from_dict(dict(model=model))
        cfg.train_dataloader.dataset.pipeline[-1]['keys'] = [key]
        params.append(pytest.param(cfg, id=f'{key} alone'))
    return params


def packed(cfg: Config) -> list[str]:
    """What the training pipeline hands on."""
    return cfg.train_dataloader.dataset.pipeline[-1]['keys']


def make_batch(cfg: Config, samples: list[tuple[int, int]]) -> dict:
    """A training batch of the tiny synthetic database's sizes, half of its input damaged."""
    parts = [random_batch(tiny(), num_points=p, num_boxes=b) for p, b in samples]
    batch = dict(
        inputs={
            key: [part['inputs'][key][0] for part in parts]
            for key in ('points', 'img')
            if key in packed(cfg)
        },
        data_samples=[part['data_samples'][0] for part in parts],
    )
    batch['inputs']['health'] = dict(
        lidar=[torch.rand(32, 32) for _ in parts], camera=[torch.rand(6, 8, 22) for _ in parts]
    )
    batch['inputs']['ego'] = dict(
        waypoints=[torch.rand(6, 3) for _ in parts],
        mask=[torch.ones(6) for _ in parts],
        status=[torch.rand(2) for _ in parts],
        command=[torch.eye(3)[0] for _ in parts],
    )
    return batch


@pytest.fixture(scope='module', params=families())
def built(request) -> tuple[Config, nn.Module]:
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return request.param, MODELS.build(request.param.model).train()


@pytest.mark.parametrize('samples', BATCHES.values(), ids=BATCHES)
def test_every_parameter_that_trains_gets_a_gradient(built, samples):
    cfg, model = built
    model.zero_grad()
    losses = model(**model.data_preprocessor(make_batch(cfg, samples), True), mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    idle = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []
    assert 'find_unused_parameters' not in cfg
