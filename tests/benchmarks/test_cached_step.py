"""A step that reads its features learns what a step learns that computes them."""

import pytest
import torch

from projects.cmt_aqr.benchmarks.cached_step import CachedTrainingStep
from projects.cmt_aqr.benchmarks.training_step import TrainingStep

FROZEN = ('img_backbone', 'pts_middle_encoder', 'pts_backbone')


def test_it_runs_nothing_that_is_frozen_and_learns_the_same(repo_root, monkeypatch):
    settings = dict(
        config=str(repo_root / 'configs/cmt/cmt_tiny_synthetic_finetune.py'),
        options={'model.fast_path': None},
        data_root=None,
        device=torch.device('cpu'),
    )
    plain, cached = TrainingStep(**settings), CachedTrainingStep(**settings)
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
