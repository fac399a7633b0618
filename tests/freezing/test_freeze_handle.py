"""Frozen parts stay frozen through training, copies and replaced norms."""

import copy
import pickle

import pytest
import torch
from freezable import PARTS, as_list, names_below, resnet, second, trainable, training, transformer
from torch import nn

from projects.cmt_aqr.freezing import FreezePolicy, eval_norms, freeze, frozen_modules

SPARSE_START = ('conv_input', 'encoder_layers.encoder_layer1')
FIRST_STAGE = {
    'ResNet': ('conv1', 'bn1', 'layer1'),
    'VoVNet': ('stem', 'stage2'),
    'SparseEncoder': SPARSE_START,
    'CmtSparseEncoder': SPARSE_START,
    'SECOND': ('blocks.0',),
    'SECONDFPN': ('deblocks.0',),
    'CPFPN': ('lateral_convs.0', 'fpn_convs.0'),
}


@pytest.mark.parametrize('case', PARTS)
def test_nothing_frozen_moves_in_training_and_all_else_does(case):
    build, make_input = PARTS[case]
    module = freeze(build(), FreezePolicy(frozen_stages=1))
    parent = nn.ModuleDict({'part': module})
    # The frozen parameters are in the optimizer on purpose, with weight decay.
    optimizer = torch.optim.SGD(parent.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    before = copy.deepcopy(module.state_dict())
    for _ in range(3):
        parent.train()
        optimizer.zero_grad()
        sum(x.square().mean() for x in as_list(module(*make_input()))).backward()
        optimizer.step()
        parent.eval()
    below = tuple(f'{root}.' for root in FIRST_STAGE[case])
    moved = {k for k, v in module.state_dict().items() if not torch.equal(v, before[k])}
    assert not {name for name in moved if name.startswith(below)}
    assert moved == {name for name in before if not name.startswith(below)}


def test_the_whole_module_frozen_survives_the_parents_train():
    parent = nn.Sequential(freeze(second(), FreezePolicy(frozen=True)), nn.Dropout())
    parent.train()
    assert training(parent) == {'', '1'}
    assert parent.eval().train() is parent
    assert training(parent) == {'', '1'}
    module = parent[0]
    assert module.train() is module
    assert module.eval() is module


def test_train_does_not_reset_requires_grad():
    module = freeze(second(), FreezePolicy(frozen=True))
    module.blocks[1].requires_grad_(True)
    module.train()
    assert trainable(module) == names_below(module, 'blocks.1')
    assert training(module) == set()


@pytest.mark.parametrize('copied', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_kept_by_its_own(copied):
    model = nn.ModuleDict({'part': freeze(second(), FreezePolicy(frozen_stages=1))}).eval()
    twin = copied(model)
    twin.train()
    assert set(frozen_modules(twin)) == set(frozen_modules(model))
    assert not twin['part'].blocks[0].training
    assert twin['part'].blocks[1].training
    assert training(model) == set()
    freeze(twin['part'], FreezePolicy())
    assert trainable(model) == names_below(model, 'part.blocks.1')
    assert len(frozen_modules(model)) > 0


def test_state_dict_is_unchanged():
    module = second()
    before = list(module.state_dict())
    assert list(freeze(module, FreezePolicy(frozen=True)).state_dict()) == before


def test_norms_that_are_replaced_later_stay_frozen():
    module = freeze(resnet(), FreezePolicy(frozen_stages=0, norm_eval=True))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(module)).train()
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    assert len(norms) == 20
    assert not any(norm.training for norm in norms.values())
    assert eval_norms(model) == norms
    assert frozen_modules(model)['0.bn1'] is norms['0.bn1']
    assert not norms['0.bn1'].weight.requires_grad


# norm_eval.


def test_norm_eval_keeps_norms_alone_in_evaluation():
    model = nn.ModuleDict({'part': freeze(second(), FreezePolicy(norm_eval=True))}).train()
    norms = {n for n, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {'part.blocks.0.1', 'part.blocks.0.4', 'part.blocks.1.1', 'part.blocks.1.4'}
    assert training(model) == {n for n, _ in model.named_modules()} - norms
    assert trainable(model) == {name for name, _ in model.named_parameters()}
    assert set(eval_norms(model)) == norms
    assert frozen_modules(model) == {}


def test_norms_are_those_with_running_statistics():
    module = nn.Sequential(
        nn.BatchNorm1d(2),
        nn.InstanceNorm1d(2, track_running_stats=True),
        nn.InstanceNorm1d(2),
        nn.LayerNorm(2),
        nn.GroupNorm(1, 2),
        nn.SyncBatchNorm(2),
    )
    freeze(module, FreezePolicy(norm_eval=True)).train()
    assert training(module) == {'', '2', '3', '4'}


def test_norm_eval_without_norms_does_nothing():
    module = freeze(transformer(), FreezePolicy(norm_eval=True)).train()
    assert training(module) == {name for name, _ in module.named_modules()}
    assert eval_norms(module) == {}
