"""The models of the released sizes: their state dicts, and a forward pass on a real keyframe.

The weights are the deterministic ones of the reference folder, so the boxes mean nothing: the tests
check that all sizes fit and all numbers are finite.
"""

import json
import runpy
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmdet3d.structures import Det3DDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from published_files import released_shapes
from torch import Tensor, nn

from projects.cmt_aqr.cli.config_changes import use_mixed_precision
from projects.cmt_aqr.data_preparation.single_frame import make_frame_root
from projects.cmt_aqr.datasets.failures import DrawIndex
from projects.cmt_aqr.hooks.pipelines import transforms_of

R50 = 'cmt_voxel0100_r50_800x320_cbgs'
VOV = 'cmt_voxel0075_vov_1600x640_cbgs'
LIDAR = 'cmt_lidar_voxel0075_cbgs'
CAMERA = 'cmt_camera_vov_1600x640_cbgs'
# BEV cells, and image tokens of six cameras.
R50_BEV, R50_IMAGES = 128 * 128, 6 * 20 * 50
VOV_BEV, VOV_IMAGES = 180 * 180, 6 * 40 * 100


class Run(NamedTuple):
    """Results of a forward pass on one frame."""

    num_tokens: int
    outputs: dict[str, Tensor]
    sample: Det3DDataSample


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        yield


def read(root: Path, name: str, folder: str = 'cmt') -> Config:
    return Config.fromfile(root / 'configs' / folder / f'{name}.py')


def on_frame(dataset: dict, frame_root: Path) -> dict:
    """The dataset of a config, reading the frame."""
    dataset.data_root = str(frame_root)
    dataset.metainfo.version = 'v1.0-mini'
    for step in dataset.pipeline:
        for failure in step.get('failures', ()):
            if 'ann_file' in failure:
                failure.ann_file = str(frame_root / dataset.ann_file)
    return dataset


def run_on_frame(model: nn.Module, dataset: dict, frame_root: Path) -> Run:
    """Runs the model on the frame, through the test pipeline of its config."""
    on_frame(dataset, frame_root)
    seen = {}
    head = model.pts_bbox_head
    head.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(tokens=kwargs['tokens'].shape[1]), with_kwargs=True
    )
    head.register_forward_hook(lambda *call: seen.update(outputs=call[-1]))
    with torch.no_grad():
        (sample,) = model.eval().test_step(pseudo_collate([DATASETS.build(dataset)[0]]))
    (outputs,) = seen['outputs'].tasks
    return Run(seen['tokens'], outputs, sample)


@pytest.mark.parametrize(
    ('name', 'released'),
    [(R50, 'r50'), (VOV, 'vov'), (LIDAR, 'lidar'), (CAMERA, 'camera')],
)
def test_state_dict_is_the_released_one(repo_root, reference, name, released):
    model = MODELS.build(read(repo_root, name).model)
    shapes = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert shapes == released_shapes(reference, released)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'num_tokens'),
    [
        (LIDAR, VOV_BEV),
        (CAMERA, VOV_IMAGES),
        (R50, R50_BEV + R50_IMAGES),
        (VOV, VOV_BEV + VOV_IMAGES),
    ],
)
def test_runs_on_the_real_frame(repo_root, reference, real_frame, tmp_path, name, num_tokens):
    cfg = read(repo_root, name)
    model = MODELS.build(cfg.model)
    runpy.run_path(str(reference / 'fill.py'))['fill_state_dict'](model, 0)
    run = run_on_frame(model, cfg.test_dataloader.dataset, make_frame_root(real_frame, tmp_path))

    assert run.num_tokens == num_tokens
    head = cfg.model.pts_bbox_head
    shape = (1, 1, head.num_query)  # of the last layer alone
    channels = dict(center=2, height=1, dim=3, rot=2, vel=2, cls_logits=len(cfg.class_names))
    assert {key: tuple(value.shape) for key, value in run.outputs.items()} == {
        key: (*shape, count) for key, count in channels.items()
    }
    assert all(value.isfinite().all() for value in run.outputs.values())

    found = run.sample.pred_instances_3d
    assert 0 < len(found) <= head.box_coder.max_num
    assert found.bboxes_3d.tensor.shape == (len(found), 9)
    assert found.bboxes_3d.tensor.isfinite().all()
    assert ((found.scores_3d >= 0) & (found.scores_3d <= 1)).all()
    assert set(found.labels_3d.tolist()) <= set(range(len(cfg.class_names)))


def one_step(cfg: Config, frame_root: Path, work_dir: Path) -> Runner:
    """A Runner that takes one training step on the frame, with the hooks of every run."""
    dataset = cfg.train_dataloader.dataset.dataset  # out of its class-balanced wrapper
    cfg.train_dataloader.dataset = on_frame(dataset, frame_root)
    cfg.train_dataloader.update(batch_size=1, num_workers=0, persistent_workers=False)
    for phase in ('val', 'test'):
        for part in ('dataloader', 'evaluator', 'cfg'):
            cfg[f'{phase}_{part}'] = None
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)  # of one sample
    cfg.param_scheduler = None
    cfg.work_dir = str(work_dir)
    return Runner.from_cfg(cfg)


@pytest.mark.parametrize('name', [R50, VOV])
def test_failures_damage_the_real_frame_anew_in_each_epoch(repo_root, real_frame, tmp_path, name):
    cfg = read(repo_root, f'{name}_failures_finetune')
    settings = cfg.train_dataloader.dataset.dataset
    dataset = DATASETS.build(on_frame(settings, make_frame_root(real_frame, tmp_path)))
    (draw_index,) = transforms_of(dataset, DrawIndex)
    health = []
    for epoch in range(8):
        draw_index.set_epoch(epoch)
        batch = pseudo_collate([dataset[0]])
        inputs = MODELS.build(cfg.model.data_preprocessor)(batch, True)['inputs']
        assert inputs['imgs'].shape[-2:] == cfg.image_size
        health.append([float(maps.mean()) for maps in inputs['health'].values()])
        # What is lost as a whole is empty, and what is whole is not.
        assert (len(inputs['points'][0]) == 0) == (health[-1][0] == 0)
    assert len({tuple(means) for means in health}) > 3
    lidar, cameras = zip(*health, strict=True)
    assert min(lidar) < 1
    assert min(cameras) < 1
    assert all(a == 1 or b == 1 for a, b in zip(lidar, cameras, strict=True))  # never both


@pytest.mark.slow
@pytest.mark.parametrize(('end', 'amp'), [('', False), ('_failures', True)])
def test_a_routed_step_on_the_real_frame_is_audited(
    repo_root, reference, real_frame, tmp_path, end, amp
):
    """One step from a checkpoint of plain CMT changes necks, decoder and router alone."""
    plain = MODELS.build(read(repo_root, R50).model)
    runpy.run_path(str(reference / 'fill.py'))['fill_state_dict'](plain, 0)
    torch.save({'state_dict': plain.state_dict()}, tmp_path / 'cmt.pth')

    cfg = read(repo_root, f'cmt_aqr_voxel0100_r50_800x320_cbgs{end}', 'cmt_aqr')
    cfg.load_from = str(tmp_path / 'cmt.pth')
    if amp:
        use_mixed_precision(cfg)
    runner = one_step(cfg, make_frame_root(real_frame, tmp_path / 'frame'), tmp_path / 'run')
    runner.train()

    report = json.loads(next(tmp_path.glob('run/*/freeze_audit.json')).read_text())
    assert report['state'] == 'passed'
    assert report['unfilled'] == []
    before, after = plain.state_dict(), runner.model.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    frozen = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')
    assert {key.split('.')[0] for key in changed} == {'img_neck', 'pts_neck', 'pts_bbox_head'}
    assert not any(key.startswith(frozen) for key in changed)
    router = runner.model.pts_bbox_head.router.aqr_weight_generator
    assert any(linear.weight.abs().max() > 0 for linear in router.to_weight.values())
