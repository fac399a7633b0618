"""The parts that count as frozen, unfilled or changed, and the messages about them."""

import pytest
import torch
from torch import nn

from projects.cmt_aqr.freezing import FreezePolicy, audit, freeze
from projects.cmt_aqr.freezing.audit import FreezeViolation, Kind, Violation


class Detector(nn.Module):
    """Module names of CMT, at a few numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.img_backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.1))
        self.img_neck = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False), nn.BatchNorm2d(2))
        self.pts_voxel_encoder = nn.Identity()
        self.pts_bbox_head = nn.Module()
        self.pts_bbox_head.transformer = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1))
        self.pts_bbox_head.bias_scale = nn.Parameter(torch.ones(1))


@pytest.fixture
def model() -> Detector:
    return Detector()


BACKBONE = {f'img_backbone.{i}.{name}' for i in (0, 1) for name in ('weight', 'bias')}
STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')
BACKBONE_STATISTICS = {f'img_backbone.1.{name}' for name in STATISTICS}
NECK_STATISTICS = {f'img_neck.1.{name}' for name in STATISTICS}


# What is frozen.


def test_nothing_is_frozen_at_first(model):
    frozen = audit.find_frozen(model)
    assert not frozen.tensors
    assert not frozen.modules
    assert not frozen.loadable


def test_frozen_by_policy(model):
    freeze(model.img_backbone, FreezePolicy(frozen=True))
    frozen = audit.find_frozen(model)
    assert set(frozen.parameters) == BACKBONE
    assert set(frozen.buffers) == BACKBONE_STATISTICS
    assert set(frozen.modules) == {'img_backbone', *(f'img_backbone.{i}' for i in range(3))}
    assert set(frozen.loadable) == BACKBONE | BACKBONE_STATISTICS


def test_always_trainable_is_not_frozen(model):
    freeze(model.img_backbone, FreezePolicy(frozen=True, always_trainable=['1']))
    frozen = audit.find_frozen(model)
    assert set(frozen.parameters) == {'img_backbone.0.weight', 'img_backbone.0.bias'}
    assert not frozen.buffers
    assert set(frozen.modules) == {'img_backbone', 'img_backbone.0', 'img_backbone.2'}


def test_only_modules_that_depend_on_the_mode_must_evaluate_if_frozen_by_hand(model):
    model.img_backbone.requires_grad_(False)
    frozen = audit.find_frozen(model)
    assert set(frozen.parameters) == BACKBONE
    assert set(frozen.buffers) == BACKBONE_STATISTICS
    assert set(frozen.modules) == {'img_backbone.1', 'img_backbone.2'}


def test_dropout_beside_trainable_parameters_may_train(model):
    model.pts_bbox_head.bias_scale.requires_grad_(False)
    frozen = audit.find_frozen(model)
    assert set(frozen.parameters) == {'pts_bbox_head.bias_scale'}
    assert not frozen.modules


def test_norm_whose_weights_train_under_norm_eval(model):
    freeze(model.img_neck, FreezePolicy(norm_eval=True))
    frozen = audit.find_frozen(model)
    assert not frozen.parameters
    assert set(frozen.buffers) == set(frozen.loadable) == NECK_STATISTICS
    assert set(frozen.modules) == {'img_neck.1'}


def test_norm_without_running_statistics_may_be_in_training_mode(model):
    model.img_neck[1] = nn.BatchNorm2d(2, track_running_stats=False)
    model.img_neck.requires_grad_(False)
    assert not audit.find_frozen(model).modules


def test_parameter_shared_with_a_trainable_module_is_trainable(model):
    model.copy = nn.Conv2d(2, 2, 1, bias=False)
    model.copy.weight = model.img_neck[0].weight
    model.img_neck[1].requires_grad_(False)
    assert set(audit.find_frozen(model).parameters) == {'img_neck.1.weight', 'img_neck.1.bias'}


def test_no_checkpoint_holds_a_buffer_that_is_not_persistent(model):
    model.img_backbone[0].register_buffer('grid', torch.zeros(2), persistent=False)
    freeze(model.img_backbone, FreezePolicy(frozen=True))
    frozen = audit.find_frozen(model)
    assert set(frozen.buffers) == BACKBONE_STATISTICS | {'img_backbone.0.grid'}
    assert set(frozen.loadable) == BACKBONE | BACKBONE_STATISTICS


# Filled from a checkpoint.


def test_unfilled_tensors_are_grouped_by_module(model):
    freeze(model.img_backbone, FreezePolicy(frozen=True))
    freeze(model.img_neck, FreezePolicy(frozen=True))
    model.pts_bbox_head.transformer[0].requires_grad_(False)
    frozen = audit.find_frozen(model)
    filled = {'img_neck.0.weight', 'img_neck.1.weight', 'img_neck.1.bias'}
    (violation,) = audit.check_filled(model, frozen, filled)
    assert set(violation.names) == set(frozen.loadable) - filled
    message = str(FreezeViolation([violation]))
    assert 'frozen tensors that no checkpoint filled (12):' in message
    assert 'img_backbone: all 7 tensors' in message
    statistics = ', '.join(f'img_neck.1.{name}' for name in STATISTICS)
    assert f'img_neck: 3 of 6 frozen tensors: {statistics}' in message
    assert 'pts_bbox_head.transformer: all 2 tensors' in message
    assert 'load_from' in message
    assert 'allow_unfilled=[...]' in message


def test_allowed_modules_may_stay_unfilled(model):
    freeze(model.img_backbone, FreezePolicy(frozen=True))
    frozen = audit.find_frozen(model)
    allowed = ('img_backbone.1',)
    (violation,) = audit.check_filled(model, frozen, (), allowed)
    assert set(violation.names) == {'img_backbone.0.weight', 'img_backbone.0.bias'}
    assert audit.check_filled(model, frozen, (), ('img_backbone', 'img_neck')) == []


# While it trains.


@pytest.fixture
def frozen_model(model) -> Detector:
    freeze(model.img_backbone, FreezePolicy(frozen=True))
    return model


# By value.


@pytest.mark.parametrize(
    'tensor',
    [
        torch.tensor(1.5),
        torch.zeros(0),
        torch.tensor([True, False]),
        torch.tensor([1, 2]),
        torch.tensor([1.0, torch.nan]),
        torch.randn(2, 3).bfloat16(),
        torch.randn(2, 3, dtype=torch.complex64),
    ],
)
def test_digest_of_any_type_is_of_its_value(tensor):
    assert audit.digest(tensor) == audit.digest(tensor.clone())
    if tensor.numel():
        changed = tensor.clone()
        changed.view(-1)[0] = 0 if tensor.dtype is torch.bool else 7
        assert audit.digest(changed) != audit.digest(tensor)


def test_digest_tells_one_bit_shape_and_type_but_not_memory_format():
    tensor = torch.randn(2, 3, 4, 4)
    nearby = tensor.clone()
    nearby[0, 0, 0, 0] = torch.nextafter(tensor[0, 0, 0, 0], torch.tensor(9.0))
    others = [nearby, tensor.view(3, 2, 4, 4), tensor.view(torch.int32)]
    assert audit.digest(tensor) not in [audit.digest(other) for other in others]
    assert audit.digest(tensor) == audit.digest(tensor.to(memory_format=torch.channels_last))


def test_changed_and_vanished_tensors_are_named(frozen_model):
    expected = audit.digests(audit.find_frozen(frozen_model).tensors)
    assert audit.check_values(frozen_model, expected) == []
    frozen_model.img_backbone[1].running_var.mul_(2)
    frozen_model.img_backbone[0].bias = None
    (violation,) = audit.check_values(frozen_model, expected)
    assert set(violation.names) == {'img_backbone.0.bias', 'img_backbone.1.running_var'}


def test_total_digest_depends_on_names_and_values_not_on_order():
    digest = audit.total_digest(dict(a='1', b='2'))
    assert digest == audit.total_digest(dict(b='2', a='1'))
    assert digest != audit.total_digest(dict(a='2', b='1'))


# How it is told.


def test_message_names_the_first_twenty():
    names = tuple(f'layer{index}' for index in range(23))
    message = str(FreezeViolation([Violation(Kind.CHANGED, names)]))
    assert 'frozen tensors whose values changed (23): layer0, layer1,' in message
    assert 'layer19 and 3 more' in message
    assert 'layer20' not in message


def test_violations_of_several_ranks_are_merged():
    one, two = Violation(Kind.CHANGED, ('a',)), Violation(Kind.CHANGED, ('a', 'b'))
    merged = audit.merge_ranks([[], [one], [one, two]])
    assert [(v.names, v.ranks) for v in merged] == [(('a',), (1, 2)), (('a', 'b'), (2,))]
    assert 'frozen tensors whose values changed (1) (found by rank 1, 2): a\n' in str(merged[0])
    assert audit.merge_ranks([[one]]) == [one]


@pytest.mark.parametrize(
    'name', ['Dropout2d', 'AlphaDropout', 'DropPath', 'DropBlock2D', 'StochasticDepth']
)
def test_what_drops_at_random_must_stay_in_evaluation_mode(name):
    kind = getattr(nn, name, None) or type(name, (nn.Identity,), {})
    model = nn.Sequential(nn.Linear(1, 1), kind())
    freeze(model, FreezePolicy(frozen=True))
    assert audit._depends_on_mode(model[1])
    assert not audit._depends_on_mode(model[0])
