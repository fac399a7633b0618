"""The memory of a training step, counted without taking the step."""

import argparse

import pytest
import torch
from torch import nn

from benchmarks import memory
from benchmarks.memory import TrainingMemory, _watch_saved
from benchmarks.workload import Workload


def test_each_storage_counts_once_and_weights_do_not():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8, bias=False))
    x = torch.randn(5, 8)
    with _watch_saved(model) as saved:
        out = model(x) * torch.ones(5, 8)
        # The input, the ReLU's output for itself and for the next layer, and the factor.
        assert saved.bytes == 3 * 5 * 8 * 4
        (out * out).sum()
        assert saved.bytes == 4 * 5 * 8 * 4


@pytest.fixture(scope='module')
def count(repo_root):
    """The count for a config of the tiny model, on a sample made at random."""

    def count(name: str, **options) -> TrainingMemory:
        return TrainingMemory(Workload(str(repo_root / f'configs/cmt/{name}.py'), options))

    return count


def test_frozen_branches_keep_nothing(count):
    trained = count('cmt_tiny_synthetic')
    necks = {'model.img_neck.frozen': True, 'model.pts_neck.frozen': True}
    fixed_features = count('cmt_tiny_synthetic_finetune', **necks)
    whole, frozen = trained.kept(amp=False), fixed_features.kept(amp=False)
    assert (frozen['camera'], frozen['lidar']) == (0, 0)
    assert min(whole.values()) > 0
    assert frozen['head'] == pytest.approx(whole['head'], rel=0.02)
    assert trained.fixed()['copies'] == 0
    weights = sum(
        4 * p.numel() for p in fixed_features.step.model.parameters() if not p.requires_grad
    )
    assert fixed_features.fixed()['copies'] == weights > 0


def test_mixed_precision_halves_the_image_branch_alone(count):
    counted = count('cmt_tiny_synthetic')
    full, half = counted.kept(amp=False), counted.kept(amp=True)
    assert 0.45 < half['camera'] / full['camera'] < 0.65
    assert half['lidar'] < full['lidar']
    assert half['head'] < full['head']


def test_the_image_branch_is_counted_as_if_it_were_run(count):
    """Fake tensors stand for the same storages as real ones."""
    counted = count('cmt_tiny_synthetic')
    model = counted.step.model
    inputs = model.data_preprocessor(counted.step.batch, True)['inputs']
    with _watch_saved(model) as saved:
        model.extract_img_feat(inputs)
    assert counted.kept(amp=False)['camera'] == saved.bytes


def test_the_table_has_both_precisions(repo_root):
    parser = argparse.ArgumentParser()
    memory.add_arguments(parser)
    config = repo_root / 'configs/cmt/cmt_tiny_synthetic.py'
    args = parser.parse_args([str(config), '--synthetic'])
    args.threads = torch.get_num_threads()
    report = memory.run(args)
    rows = [line for line in report.markdown.splitlines() if line.startswith('| cmt_tiny')]
    assert [row.split('|')[2].strip() for row in rows] == ['float32', '--amp']
    model = report.data['models']['cmt_tiny_synthetic']
    fixed, kept = (sum(part.values()) for part in (model['fixed'], model['kept']['float32']))
    assert f'{(fixed + 2 * kept) / 1e9:.2f} GB' in rows[0]
