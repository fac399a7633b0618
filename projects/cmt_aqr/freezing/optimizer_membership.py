"""Optimizer groups whose parameters join and leave during a run.

The groups themselves never change. Schedulers, which store values per group, continue undisturbed,
and a parameter that joins late gets the current rate of its group.
"""

from collections.abc import Iterator
from itertools import chain
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer

_MEMBERS: WeakKeyDictionary[Optimizer, list[list[nn.Parameter]]] = WeakKeyDictionary()


def members(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """All parameters that the groups were built with, whether currently optimized or not."""
    built_with = _MEMBERS.get(optimizer) or [group['params'] for group in optimizer.param_groups]
    return chain.from_iterable(built_with)


def keep_trainable(optimizer: Optimizer) -> None:
    """Remove parameters without ``requires_grad`` from the groups and restore those that have it.

    A removed parameter loses its optimizer state and starts afresh if it returns. State dicts
    always list all members, so one saved in any phase can be loaded in any other.
    """
    if optimizer not in _MEMBERS:
        _MEMBERS[optimizer] = [[*group['params']] for group in optimizer.param_groups]
        optimizer.register_state_dict_pre_hook(_put_all)
        optimizer.register_state_dict_post_hook(_put_trainable)
        optimizer.register_load_state_dict_pre_hook(_put_all)
        optimizer.register_load_state_dict_post_hook(_put_trainable)
    _put_trainable(optimizer)
    for parameter in members(optimizer):
        if not parameter.requires_grad:
            optimizer.state.pop(parameter, None)


# As hooks, the following two also receive the state dict, which they leave unchanged.


def _put_all(optimizer: Optimizer, *_: object) -> None:
    for group, built_with in zip(optimizer.param_groups, _MEMBERS[optimizer], strict=True):
        group['params'] = [*built_with]


def _put_trainable(optimizer: Optimizer, *_: object) -> None:
    _put_all(optimizer)
    for group in optimizer.param_groups:
        group['params'] = [parameter for parameter in group['params'] if parameter.requires_grad]
