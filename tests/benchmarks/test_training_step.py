"""A step that is cut into branches to be timed is the detector's own step."""

import copy

import numpy as np
import pytest
import torch
from freezable import trainable
from torch import nn

from benchmarks.training_step import BRANCHES, CachedTrainingStep, TrainingStep
from benchmarks.workload import Workload

CPU = torch.device('cpu')
PARTS = {
    'img_backbone',
    'img_neck',
    'pts_voxel_encoder',
    'pts_middle_encoder',
    'pts_backbone',
    'pts_neck',
}
FROZEN = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')


@pytest.fixture
def make(repo_root):
    """A step of a config, on a sample made at random."""

    def make(name, **options):
        given = Workload(str(repo_root / f'configs/cmt/{name}.py'), options)
        return TrainingStep(given, device=CPU)

    return make


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def seed() -> None:
    """Of the denoising queries."""
    torch.manual_seed(3)
    np.random.seed(3)


@pytest.mark.parametrize('name', ['cmt_tiny_synthetic', 'cmt_tiny_synthetic_finetune'])
def test_the_gradients_are_those_of_an_uncut_step(make, name):
    step = make(name)
    whole = copy.deepcopy(step.model)
    seed()
    data = whole.data_preprocessor(step.batch, True)
    losses = whole(**data, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    seed()
    step.differentiate()
    torch.testing.assert_close(gradients(step.model), gradients(whole), rtol=1e-5, atol=1e-6)
    assert gradients(step.model).keys() == trainable(step.model)


def test_every_phase_branch_and_part_is_timed_once(make):
    step = make('cmt_tiny_synthetic')
    step()
    times = step()  # laps of the first do not add up with those of the second
    phases = {
        *('step', 'input', 'forward', 'backward', 'update'),
        *(f'{phase}/{branch}' for phase in ('forward', 'backward') for branch in BRANCHES),
        *(f'part/{name}' for name in PARTS),
    }
    assert times.keys() == phases | {f'cpu/{phase}' for phase in phases}
    assert all(value > 0 for value in times.values())
    for phase in ('forward', 'backward'):
        assert times[phase] == pytest.approx(sum(times[f'{phase}/{b}'] for b in BRANCHES))
    assert times['step'] == pytest.approx(
        sum(times[phase] for phase in ('input', 'forward', 'backward', 'update'))
    )
    assert times['part/img_backbone'] + times['part/img_neck'] <= times['forward/camera']
    lidar = sum(value for key, value in times.items() if key.startswith('part/pts'))
    assert lidar <= times['forward/lidar']


def test_a_step_changes_what_trains_and_nothing_else(make):
    step = make('cmt_tiny_synthetic_finetune')
    before = {name: p.clone() for name, p in step.model.named_parameters()}
    step()
    changed = {n for n, p in step.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == trainable(step.model)
    assert gradients(step.model) == {}


def test_facts_name_what_is_frozen(make):
    facts = make('cmt_tiny_synthetic').facts
    assert facts['frozen_parts'] == []
    step = make('cmt_tiny_synthetic_finetune')
    assert set(step.facts['frozen_parts']) == set(FROZEN)
    frozen = sum(p.numel() for n in FROZEN for p in step.model.get_submodule(n).parameters())
    assert step.facts['trainable'] == facts['trainable'] - frozen


def test_a_cached_step_runs_nothing_that_is_frozen_and_learns_the_same(repo_root, monkeypatch):
    config = str(repo_root / 'configs/cmt/cmt_tiny_synthetic_finetune.py')
    given = Workload(config, {'model.fast_path': None})
    plain, cached = TrainingStep(given, device=CPU), CachedTrainingStep(given, device=CPU)
    for name in FROZEN:
        part = cached.model.get_submodule(name)
        monkeypatch.setattr(part, 'forward', lambda *_: pytest.fail('computed'))
    gradients = []
    for step in (plain, cached):
        torch.manual_seed(0)
        step.differentiate()
        gradients.append({n: p.grad for n, p in step.model.named_parameters()})
    assert {n for n, g in gradients[0].items() if g is not None} == {
        n for n, g in gradients[1].items() if g is not None
    }
    name = 'pts_bbox_head.shared_conv.conv.weight'
    one, other = (found[name] for found in gradients)
    assert (one - other).norm() < 0.02 * one.norm()
    times = cached()
    assert not any(f'part/{name}' in times for name in FROZEN)
    assert times['step'] > 0
