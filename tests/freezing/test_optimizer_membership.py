"""Who is in the optimizer follows the gradients; its state dict lists all."""

import copy

import pytest
import torch
from torch import nn

from projects.cmt_aqr.freezing.optimizer_membership import keep_trainable, members


def build() -> tuple[nn.ParameterList, torch.optim.Optimizer]:
    parameters = nn.ParameterList(torch.ones(1) for _ in range(3))
    first, second, third = parameters
    groups = [dict(params=[first, second], name='two'), dict(params=[third], name='one')]
    return parameters, torch.optim.AdamW(groups, lr=0.1)


def step(parameters: nn.ParameterList, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    sum((p - 3).square().sum() for p in parameters if p.requires_grad).backward()
    optimizer.step()


def present(parameters: nn.ParameterList, optimizer: torch.optim.Optimizer) -> list[list[int]]:
    """Indices of the parameters in each group, in order."""
    index = {id(parameter): i for i, parameter in enumerate(parameters)}
    return [[index[id(p)] for p in group['params']] for group in optimizer.param_groups]


def with_state(parameters: nn.ParameterList, optimizer: torch.optim.Optimizer) -> list[int]:
    return [i for i, parameter in enumerate(parameters) if parameter in optimizer.state]


def test_parameters_leave_with_their_state_and_come_back_in_place_without():
    parameters, optimizer = build()
    step(parameters, optimizer)
    parameters[0].requires_grad_(False)
    parameters[2].requires_grad_(False)
    keep_trainable(optimizer)
    assert present(parameters, optimizer) == [[1], []]
    assert with_state(parameters, optimizer) == [1]
    assert [*members(optimizer)] == [*parameters]
    step(parameters, optimizer)  # an empty group is no obstacle
    parameters[0].requires_grad_(True)
    keep_trainable(optimizer)
    assert present(parameters, optimizer) == [[0, 1], []]
    assert with_state(parameters, optimizer) == [1]
    step(parameters, optimizer)
    assert [int(optimizer.state[p]['step']) for p in (parameters[0], parameters[1])] == [1, 3]


def test_state_dict_lists_all_members_and_changes_nothing():
    parameters, optimizer = build()
    step(parameters, optimizer)
    parameters[0].requires_grad_(False)
    keep_trainable(optimizer)
    saved = optimizer.state_dict()
    assert [group['params'] for group in saved['param_groups']] == [[0, 1], [2]]
    assert set(saved['state']) == {1, 2}
    assert present(parameters, optimizer) == [[1], [2]]


def test_state_is_loaded_for_all_members():
    parameters, optimizer = build()
    step(parameters, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    saved['param_groups'][1]['lr'] = 0.7

    others, loading = build()
    others[1].requires_grad_(False)
    keep_trainable(loading)
    loading.load_state_dict(saved)
    assert present(others, loading) == [[0], [2]]
    assert [group['lr'] for group in loading.param_groups] == [0.1, 0.7]
    # Kept until the next choice of members: of a resumed run that is the one that is due.
    assert with_state(others, loading) == [0, 1, 2]
    assert torch.equal(
        loading.state[others[1]]['exp_avg'], optimizer.state[parameters[1]]['exp_avg']
    )
    keep_trainable(loading)
    assert with_state(others, loading) == [0, 2]


def test_members_are_those_of_the_groups_until_any_leaves():
    parameters, optimizer = build()
    assert [*members(optimizer)] == [*parameters]


@pytest.mark.parametrize('kind', [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize('foreach', [False, True])
def test_groups_may_be_empty(kind, foreach):
    parameters, _ = build()
    optimizer = kind([dict(params=[p]) for p in parameters], lr=0.1, foreach=foreach)
    for index in (0, 2):
        parameters[index].requires_grad_(False)
    keep_trainable(optimizer)
    step(parameters, optimizer)
    assert [float(p.detach()) != 1 for p in parameters] == [False, True, False]
