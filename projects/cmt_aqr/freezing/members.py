"""Who of a group's parameters is in the optimizer now, where that changes during a run.

The groups stay as they were built. Schedulers, which keep values by group, therefore go on as if
nothing happened, and give a parameter that joins late the rate its group has then.
"""

from collections.abc import Iterator
from itertools import chain
from weakref import WeakKeyDictionary

from torch import nn
from torch.optim import Optimizer

_MEMBERS: WeakKeyDictionary[Optimizer, list[list[nn.Parameter]]] = WeakKeyDictionary()


def members(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    """Every parameter that the groups were built with, in the optimizer now or not."""
    built_with = _MEMBERS.get(optimizer) or [group['params'] for group in optimizer.param_groups]
    return chain.from_iterable(built_with)


def keep_trainable(optimizer: Optimizer) -> None:
    """Take out of the groups what requires no gradient, and put back in its place what does again.

    What leaves loses its state, and so begins anew when it comes back. The state dict lists all
    members all the time, so that one saved under any choice of members can be loaded under any
    other.
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


# Both are called by the optimizer with its state dict, too, which they leave alone.


def _put_all(optimizer: Optimizer, *_: object) -> None:
    for group, built_with in zip(optimizer.param_groups, _MEMBERS[optimizer], strict=True):
        group['params'] = [*built_with]


def _put_trainable(optimizer: Optimizer, *_: object) -> None:
    for group, built_with in zip(optimizer.param_groups, _MEMBERS[optimizer], strict=True):
        group['params'] = [parameter for parameter in built_with if parameter.requires_grad]
