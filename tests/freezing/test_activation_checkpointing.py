"""Layers behind frozen ones train the same with activation checkpointing as without.

What enters the first trainable layer requires no gradient. A re-entrant checkpoint around that
layer would cut its weights off, and so those of the next, and of all layers, without an error.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from freezable import dinov2, names_below, resnet, siglip, trainable
from torch import Tensor, nn
from torch.utils import checkpoint

from projects.cmt_aqr.freezing import FreezePolicy, freeze

NON_REENTRANT = dict(use_reentrant=False)
WIDE = dict(hidden_size=8, num_attention_heads=2, patch_size=14)


@contextmanager
def counted(monkeypatch) -> Iterator[list]:
    """The calls of torch's checkpoint, by whichever name it was imported."""
    calls = []
    original = checkpoint.checkpoint

    def count(*args, **kwargs):
        calls.append(kwargs)
        return original(*args, **kwargs)

    monkeypatch.setattr(checkpoint, 'checkpoint', count)
    monkeypatch.setattr('transformers.modeling_utils.checkpoint', count)
    yield calls


def gradients(module: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Gradient of each parameter that got one, for a fixed loss."""
    module.train()
    module.zero_grad()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch's, that mmdet leaves use_reentrant to it
        output = module(image)
    maps = output.last_hidden_state if hasattr(output, 'last_hidden_state') else output[-1]
    (maps * torch.linspace(-1, 1, maps.numel()).view_as(maps)).sum().backward()
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], due: dict[str, Tensor], *, first: set[str]) -> None:
    """The gradients are the same, and reach every weight of the first trainable layer."""
    torch.testing.assert_close(found, due)
    assert first <= due.keys()
    assert all(due[name].abs().max() > 0 for name in first if name.endswith('weight'))


@pytest.mark.parametrize('layers', [1, 2, 3, 4])
def test_resnet(monkeypatch, layers):
    policy = FreezePolicy(unfreeze_layers=range(-layers, 0), norm_eval=True)
    plain = freeze(resnet(norm_eval=True), policy)
    saving = freeze(resnet(norm_eval=True, with_cp=True), policy)
    saving.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 64)
    due = gradients(plain, image)
    with counted(monkeypatch) as calls:
        found = gradients(saving, image)
    assert_same(found, due, first=names_below(plain, f'layer{5 - layers}'))
    assert due.keys() == trainable(plain)
    # mmdet checkpoints a block only if what enters it requires a gradient: not the first one.
    assert len(calls) == 2 * layers - 1


@pytest.mark.parametrize('build', [dinov2, siglip])
@pytest.mark.parametrize('layers', [1, 3, 12])
def test_vision_transformers(monkeypatch, build, layers):
    module = freeze(build(**WIDE), FreezePolicy(unfreeze_layers=range(-layers, 0)))
    image = torch.randn(1, 3, 28, 28)
    due = gradients(module, image)
    with counted(monkeypatch) as calls:
        module.gradient_checkpointing_enable(gradient_checkpointing_kwargs=NON_REENTRANT)
        found = gradients(module, image)
    stack = 'encoder.layer' if build is dinov2 else 'encoder.layers'
    assert_same(found, due, first=names_below(module, f'{stack}.{12 - layers}'))
    assert len(calls) >= layers


def test_vision_transformers_are_not_re_entrant_unless_told_so(monkeypatch):
    with counted(monkeypatch) as calls:
        module = freeze(dinov2(**WIDE), FreezePolicy(unfreeze_layers=[-1]))
        module.gradient_checkpointing_enable()
        gradients(module, torch.randn(1, 3, 28, 28))
    assert calls
    assert all(call['use_reentrant'] is False for call in calls)


def test_re_entrant_checkpoints_would_cut_off_all_layers():
    module = freeze(dinov2(**WIDE), FreezePolicy(unfreeze_layers=[-1, -2]))
    re_entrant = dict(use_reentrant=True)
    module.gradient_checkpointing_enable(gradient_checkpointing_kwargs=re_entrant)
    found = gradients(module, torch.randn(1, 3, 28, 28))
    cut_off = trainable(module) - found.keys()
    assert cut_off == names_below(module, 'encoder.layer.10', 'encoder.layer.11')
