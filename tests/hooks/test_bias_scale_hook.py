"""Scales are back in their range when an iteration ends, and before it is saved."""

from types import SimpleNamespace

import torch
from mmengine.hooks import CheckpointHook
from mmengine.runner import get_priority
from torch import nn

from projects.cmt_aqr.hooks import BiasScaleHook
from projects.cmt_aqr.running_hooks import running_hooks
from projects.cmt_aqr.transformer import BiasRouting


def test_scales_are_put_back_wherever_they_are():
    form = BiasRouting(num_heads=1, scope='both')
    with torch.no_grad():
        form.bias_scale.copy_(torch.tensor([[-1.0, 2.0], [5.5, 0.5]]))
    runner = SimpleNamespace(model=nn.Sequential(nn.Linear(1, 1), nn.Sequential(form)))
    BiasScaleHook().after_train_iter(runner, 0)
    assert form.bias_scale.tolist() == [[0.5, 2.0], [5.0, 0.5]]


def test_the_model_knows_that_it_runs():
    model = nn.Linear(1, 1)
    BiasScaleHook().before_train(SimpleNamespace(model=model))
    assert running_hooks(model) == {'BiasScaleHook'}


def test_it_goes_before_the_checkpoint_hook():
    assert get_priority(BiasScaleHook.priority) < get_priority(CheckpointHook.priority)
