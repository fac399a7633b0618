"""Keeping frozen what a policy has frozen, and asking what is.

Frozen means: no gradient, and evaluation mode through every ``train()``, so that the running
statistics of norms stand still too. ``requires_grad=False`` alone does not do that.
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .policy import FrozenNames


def frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every submodule of ``model`` that a policy keeps frozen, by its full dotted name.

    The policy speaks for a submodule's own parameters and buffers (``recurse=False``); those of its
    children only if they are in the answer themselves, for they may be `always_trainable`.
    """
    return {
        _join(prefix, name): module
        for prefix, keeper in _keepers(model).items()
        for name, module in keeper.frozen_modules().items()
    }


def eval_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Every norm that a `norm_eval` keeps in evaluation mode, by its full dotted name.

    Besides policies this counts the ``norm_eval`` of classes that have their own, as mmdet's
    ResNet. Norms that are frozen without `norm_eval` are not in the answer.
    """
    owners = {
        prefix: keeper.module for prefix, keeper in _keepers(model).items() if keeper.norm_eval
    }
    for prefix, module in model.named_modules():
        if getattr(module, 'norm_eval', False) is True:
            owners[prefix] = module
    return {
        _join(prefix, name): norm
        for prefix, module in owners.items()
        for name, norm in _norms(module).items()
    }


class Keeper:
    """Stands in for ``module.train`` and puts what is frozen back into evaluation mode.

    It holds names, not submodules: a submodule may be replaced later, as by the conversion to
    synchronised norms. Being a plain attribute, it is copied and pickled with its module.

    Args:
        module: the module to keep.
        names: what of it is frozen.
        norm_eval: keep the norms in evaluation mode too.
    """

    def __init__(self, module: nn.Module, names: FrozenNames, *, norm_eval: bool) -> None:
        self.module = module
        self.names = names
        self.norm_eval = norm_eval
        self.mode = module.training
        self.taken_gradients: list[str] = []

    def __call__(self, mode: bool = True) -> nn.Module:
        """Do what ``module.train(mode)`` does, but for what is frozen."""
        type(self.module).train(self.module, mode)
        self.mode = mode
        self._set_evaluation()
        return self.module

    def take_hold(self) -> None:
        """Freeze the module, from now on and through every ``train()``."""
        for name, parameter in self.module.named_parameters():
            if self.names.cover(name) and parameter.requires_grad:
                parameter.requires_grad_(False)
                parameter.grad = None  # an optimizer would take one more step with it
                self.taken_gradients.append(name)
        self.module.train = self
        self._set_evaluation()

    def release(self) -> None:
        """Undo :meth:`take_hold`."""
        for name in self.taken_gradients:
            self.module.get_parameter(name).requires_grad_(True)
        del self.module.train
        self.module.train(self.mode)

    def frozen_modules(self) -> dict[str, nn.Module]:
        """The frozen submodules by their names within the module."""
        return {n: module for n, module in self.module.named_modules() if self.names.cover(n)}

    def _set_evaluation(self) -> None:
        for module in self.frozen_modules().values():
            module.training = False
        if self.norm_eval:
            for norm in _norms(self.module).values():
                norm.training = False


def keeper_of(module: nn.Module) -> Keeper | None:
    """The keeper that a policy has put on ``module`` itself."""
    keeper = vars(module).get('train')
    return keeper if isinstance(keeper, Keeper) else None


def _keepers(model: nn.Module) -> dict[str, Keeper]:
    """The keepers within ``model`` by the dotted names of their modules."""
    found = {name: keeper_of(module) for name, module in model.named_modules()}
    return {name: keeper for name, keeper in found.items() if keeper is not None}


def _norms(module: nn.Module) -> dict[str, nn.Module]:
    """Submodules that behave otherwise in training because of their running statistics."""
    return {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm)
        or (isinstance(norm, _InstanceNorm) and norm.track_running_stats)
    }


def _join(prefix: str, name: str) -> str:
    return '.'.join(part for part in (prefix, name) if part)
