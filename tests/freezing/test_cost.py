"""What is frozen costs a forward pass and no more: no graph, no activation kept, no parameter idle.

All recipes, with and without a router, on one sample. Every parameter that trains gets a gradient:
this lets distributed training do without `find_unused_parameters`.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from projects.cmt_aqr.doctor.random_sample import random_batch

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
BACKBONES = {'img_backbone', 'pts_middle_encoder', 'pts_backbone'}
NECKS = {'img_neck', 'pts_neck'}
FROZEN = {
    'frozen': BACKBONES,
    'fast_necks': BACKBONES,
    'low_rate': set(),
    'fixed_features': BACKBONES | NECKS,
}


@pytest.fixture(params=['cmt/cmt_tiny_synthetic_finetune', 'cmt_aqr/cmt_aqr_tiny_synthetic'])
def family(request) -> str:
    """Without and with a router."""
    return request.param


@pytest.fixture(params=FROZEN)
def recipe(request) -> str:
    return request.param


@pytest.fixture
def cfg(family, recipe) -> Config:
    cfg = Config.fromfile(CONFIGS / f'{family}.py')
    cfg.merge_from_dict(cfg.recipes[recipe])
    return cfg


@pytest.fixture
def model(cfg) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return MODELS.build(cfg.model).train()


@pytest.fixture
def batch(cfg) -> dict:
    return random_batch(cfg, num_points=3000, num_boxes=4)


def features_of(model: nn.Module, batch: dict) -> tuple[Tensor, Tensor]:
    """Of LiDAR and of the images."""
    return model.extract_feat(model.data_preprocessor(batch, training=True)['inputs'])


def parts(model: nn.Module) -> dict[str, nn.Module]:
    """What makes the features and has parameters."""
    return {name: model.get_submodule(name) for name in sorted(BACKBONES | NECKS)}


def tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


@contextmanager
def kept_tensors(model: nn.Module) -> Iterator[Counter]:
    """Count the tensors that each part keeps for the backward pass while it does its forward."""
    kept, running, handles = Counter(), ['between'], []

    def leave(*_: object) -> None:
        running.pop()

    for name, part in parts(model).items():
        handles.append(part.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        handles.append(part.register_forward_hook(leave))

    def keep(tensor: Tensor) -> Tensor:
        kept[running[-1]] += 1
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
    for handle in handles:
        handle.remove()


def test_frozen_parts_run_without_a_graph(model, batch, recipe):
    outputs = {}
    for name, part in parts(model).items():
        part.register_forward_hook(lambda *call, name=name: outputs.update({name: call[-1]}))
    features = features_of(model, batch)
    with_graph = {
        name for name, out in outputs.items() if any(t.requires_grad for t in tensors(out))
    }
    assert outputs.keys() == parts(model).keys()
    assert with_graph == outputs.keys() - FROZEN[recipe]
    assert [feature.requires_grad for feature in features] == [recipe != 'fixed_features'] * 2


def test_frozen_parts_keep_no_activation(model, batch, recipe):
    with kept_tensors(model) as kept:
        features_of(model, batch)
    assert kept.keys() == parts(model).keys() - FROZEN[recipe]


@pytest.mark.parametrize('num_points', [3000, 0], ids=['whole', 'LiDAR drop'])
def test_everything_that_trains_gets_a_gradient_and_nothing_else(cfg, model, num_points):
    """Also with a dead LiDAR."""
    batch = random_batch(cfg, num_points=num_points, num_boxes=4)
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    parameters = dict(model.named_parameters())
    with_gradient = {name for name, p in parameters.items() if p.grad is not None}
    assert with_gradient == {name for name, p in parameters.items() if p.requires_grad}
    assert not cfg.get('find_unused_parameters', False)
