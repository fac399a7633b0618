"""A head that learns low-rank deltas of its matrices (LoRA, Hu et al., ICLR 2022)."""

from collections.abc import Mapping
from typing import Any

import torch
from mmdet3d.registry import MODELS
from torch import Tensor, nn
from torch.nn.utils import parametrize

from projects.cmt_aqr.head import CmtHead


class LowRankDelta(nn.Module):
    """A matrix, or several along its first dimension, plus a product of two thin ones.

    Args:
        weight: (groups * out, ...); the delta starts at zero.
        groups: number of matrices, with a delta each.
        rank: columns of the first factor, at most those of a full matrix.
    """

    def __init__(self, weight: Tensor, *, groups: int, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape[0] // groups, weight[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(torch.empty(groups, rank, columns))
        self.up = nn.Parameter(torch.zeros(groups, rows, rank))
        nn.init.normal_(self.down, std=columns**-0.5)

    def forward(self, weight: Tensor) -> Tensor:
        """The sum, with the shape of ``weight``."""
        return weight + (self.up @ self.down).reshape(weight.shape)


@MODELS.register_module()
class LowRankHead(CmtHead):
    """A :class:`CmtHead` of which only vectors and low-rank deltas of the matrices train.

    Its state dict contains the sums, under the names of a :class:`CmtHead`, so that a checkpoint is
    that of an expert; a training cannot be resumed from it.

    Args:
        rank: of the deltas of each decoder layer; ``None`` trains the matrices themselves.
        config: that of a :class:`CmtHead`.
    """

    def __init__(self, *, rank: int | None, **config: Any) -> None:
        super().__init__(**config)
        if rank is None:
            return
        for module in [*self.modules()]:
            for name, weight in [*module.named_parameters(recurse=False)]:
                if weight.dim() > 1:
                    weight.requires_grad_(False)
                    groups = 3 if name == 'in_proj_weight' else getattr(module, 'groups', 1)
                    delta = LowRankDelta(weight, groups=groups, rank=rank)
                    parametrize.register_parametrization(module, name, delta)
        self.register_load_state_dict_pre_hook(_add_deltas)
        self.register_state_dict_post_hook(_sum_deltas)


def _sums(head: nn.Module, prefix: str) -> Mapping[str, tuple[nn.Module, str]]:
    """Module and attribute of each sum, by the name that it has in a :class:`CmtHead`."""
    return {
        f'{prefix}{path}.{name}'.replace('..', '.'): (module, name)
        for path, module in head.named_modules()
        if parametrize.is_parametrized(module)
        for name in module.parametrizations
    }


def _places(full_name: str) -> tuple[str, str]:
    path, _, name = full_name.rpartition('.')
    place = f'{path}.parametrizations.{name}'
    return f'{place}.original', f'{place}.0'


def _add_deltas(head: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    for full_name, (module, name) in _sums(head, prefix).items():
        if full_name in state_dict:
            original, delta = _places(full_name)
            state_dict[original] = state_dict.pop(full_name)
            for key, value in module.parametrizations[name][0].state_dict().items():
                state_dict[f'{delta}.{key}'] = value


def _sum_deltas(head: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    for full_name, (module, name) in _sums(head, prefix).items():
        original, delta = _places(full_name)
        for key in (original, f'{delta}.down', f'{delta}.up'):
            del state_dict[key]
        state_dict[full_name] = getattr(module, name).detach()
