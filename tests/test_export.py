"""The ONNX files of a detector, against PyTorch, and the example of docs/export.md."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from projects.cmt_aqr.export import TOLERANCE, build_for_export, deviation, parts_of
from projects.cmt_aqr.usage_error import UsageError

pytest.importorskip('onnx', reason='pip install -r requirements/export.txt')
pytest.importorskip('onnxruntime', reason='pip install -r requirements/export.txt')

TINY = 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py'
WEIGHTS = 'projects/cmt_aqr/weights/cmt_aqr_tiny_synthetic_failures.pth'


def run_tool(repo_root, *arguments):
    """What tools/export_onnx.py prints; it exports with a batch of 2."""
    printed = io.StringIO()
    command = ['export_onnx.py', *map(str, arguments)]
    with mock.patch.object(sys, 'argv', command), redirect_stdout(printed):
        runpy.run_path(str(repo_root / 'tools/export_onnx.py'), run_name='__main__')
    return printed.getvalue()


@pytest.fixture(scope='module')
def exported(repo_root, tmp_path_factory):
    """Model, config and folder of the shipped router, exported, and what the tool printed."""
    folder = tmp_path_factory.mktemp('onnx')
    cfg = Config.fromfile(repo_root / TINY)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        printed = run_tool(repo_root, repo_root / TINY, repo_root / WEIGHTS, '--out', folder)
        return build_for_export(cfg, str(repo_root / WEIGHTS)), cfg, folder, printed


def test_tiny_model_is_equal_for_any_batch(exported):
    *_, folder, printed = exported
    found = re.findall(r'(\S+): batch of (\d), deviation (\S+)', printed)
    parts = [str(folder / f'{name}.onnx') for name in ('bev', 'images', 'head')]
    assert [(part, size) for part, size, _ in found] == [(p, n) for n in '13' for p in parts]
    assert max(float(deviation) for *_, deviation in found) <= TOLERANCE


def test_a_wrong_part_deviates(exported):
    model, cfg, folder, _ = exported
    part = parts_of(model, cfg, batch_size=1)['head']
    with torch.no_grad():
        linear = model.pts_bbox_head.router.aqr_weight_generator.to_weight['lidar']
        linear.bias += 0.1
        assert deviation(part, folder / 'head.onnx') > TOLERANCE
        linear.bias -= 0.1


def test_a_sensor_alone_has_no_part_of_the_other(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    del cfg.model['img_backbone'], cfg.model['img_neck']
    cfg.model.pts_bbox_head.modalities = ['lidar']
    model = MODELS.build(cfg.model).eval()
    parts = parts_of(model, cfg, batch_size=2)
    assert {name: [*part.inputs] for name, part in parts.items()} == {
        'bev': ['encoded'],
        'head': ['bev'],
    }
    boxes, scores = parts['head'].module(parts['head'].inputs['bev'])
    assert boxes.shape[:2] == scores.shape[:2] == (2, model.pts_bbox_head.num_query)


def test_a_rig_of_ones_own(exported):
    """Another number of cameras, and a config without the variables of nuScenes' configs."""
    model, cfg, *_ = exported
    cfg = cfg.copy()
    cfg.pop('class_names')
    parts = parts_of(model, cfg, batch_size=1, num_cameras=5)
    assert parts['images'].inputs['imgs'].shape[1] == 5
    assert parts['head'].inputs['lidar2img'].shape == (1, 5, 4, 4)


def test_experts_are_refused_and_a_monitor_is_left_out_aloud(repo_root, monkeypatch):
    said = []
    monkeypatch.setattr('projects.cmt_aqr.export.print_log', lambda text, **_: said.append(text))
    weights = str(repo_root / 'projects/cmt_aqr/weights/cmt_tiny_synthetic_health.pth')
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_health.py')
    build_for_export(cfg, weights)
    assert said == ['the health_monitor is not exported']
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_streets_experts.py')
    with pytest.raises(UsageError, match='ExpertDetector: the choice of an expert is not exported'):
        build_for_export(cfg, weights)


def test_the_example_of_the_page_finds_the_boxes_of_the_model(
    repo_root, exported, synthetic_root, tmp_path, monkeypatch
):
    model, _, folder, _ = exported
    for name, target in (
        ('configs', repo_root / 'configs'),
        ('projects', repo_root / 'projects'),
        ('data/synthetic_nuscenes', synthetic_root),
        ('work_dirs/onnx', folder),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(target)
    monkeypatch.chdir(tmp_path)
    page = (repo_root / 'docs/export.md').read_text()
    Path('example.py').write_text(re.search(r'```python\n(.*?)```', page, re.DOTALL).group(1))
    example = runpy.run_path('example.py')

    with torch.no_grad():
        (sample,) = model.test_step(example['batch'])
    expected = sample.pred_instances_3d
    count = len(example['best'])
    assert count > 0
    torch.testing.assert_close(
        torch.tensor([score for score, _, _ in example['best']]), expected.scores_3d[:count]
    )
    names = [example['cfg'].class_names[label] for label in expected.labels_3d[:count]]
    assert [name for _, name, _ in example['best']] == names


@pytest.mark.slow
def test_r50_is_equal(repo_root, reference, tmp_path):
    cfg = Config.fromfile(
        repo_root / 'configs/cmt_aqr/cmt_aqr_voxel0100_r50_800x320_cbgs_failures.py'
    )
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model)
    runpy.run_path(str(reference / 'fill.py'))['fill_state_dict'](model, 0)
    torch.save({'state_dict': model.state_dict()}, tmp_path / 'r50.pth')
    printed = run_tool(
        repo_root, cfg.filename, tmp_path / 'r50.pth', '--out', tmp_path, '--check', 1
    )
    assert printed.count('batch of 1') == 3  # a deviation ends the tool
