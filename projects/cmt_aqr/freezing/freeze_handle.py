"""Freezing a module, keeping it frozen, and listing what is frozen.

A frozen module has no gradients and stays in evaluation mode through every ``train()``, so that the
running statistics of its norms do not change either. ``requires_grad=False`` alone achieves only
the former.
"""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .names import join
from .policy import FreezePolicy, FrozenNames, resolve


def freeze(module: nn.Module, policy: FreezePolicy, *, name: str | None = None) -> nn.Module:
    """Apply ``policy`` to ``module``, replacing an earlier policy; returns ``module``.

    Parameters that the earlier policy froze become trainable unless the new one freezes them, too;
    parameters frozen by other means stay frozen. A module's own ``norm_eval`` remains in force.

    The policy acts through a ``train`` attribute of the module. It therefore survives a parent's
    ``train()``, deep copies and pickling. ``train()`` restores modes only: a parameter whose
    ``requires_grad`` is set afterwards stays trainable.

    Args:
        module: changed in place.
        policy: the settings.
        name: name of the module in messages.

    Raises:
        ValueError: the policy does not fit the module, which is left unchanged.
    """
    names = preview(module, policy, name=name)
    norm_eval = policy.norm_eval or getattr(module, 'norm_eval', False)
    earlier = handle_of(module)
    if earlier is not None:
        earlier.release()
    if names.frozen or norm_eval:
        FreezeHandle(module, names, norm_eval=norm_eval).attach()
    return module


def preview(module: nn.Module, policy: FreezePolicy, *, name: str | None = None) -> FrozenNames:
    """The names that :func:`freeze` would freeze, with the same arguments and errors."""
    kind = type(module).__name__
    return resolve(policy, module, label=f'{name} ({kind})' if name else kind)


def frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Submodules of ``model`` that a policy keeps frozen, by full dotted name.

    Each entry stands for its own parameters and buffers (``recurse=False``); its children, which
    may be `always_trainable`, have their own entries.
    """
    return {
        join(prefix, name): module
        for prefix, handle in _handles(model).items()
        for name, module in handle.frozen_modules().items()
    }


def eval_norms(model: nn.Module) -> dict[str, nn.Module]:
    """Norms that a `norm_eval` keeps in evaluation mode, by full dotted name.

    It may be that of a policy, or of a class that implements it itself, such as mmdet's ResNet.
    """
    handles = _handles(model)
    return {
        join(prefix, name): norm
        for prefix, module in model.named_modules()
        if getattr(module, 'norm_eval', False) is True
        or (prefix in handles and handles[prefix].norm_eval)
        for name, norm in _norms(module).items()
    }


class FreezeHandle:
    """Replacement for ``module.train`` that returns the frozen parts to evaluation mode.

    It stores names rather than submodules, since submodules may be replaced later, for instance by
    the conversion to synchronised norms. As a plain attribute it is copied and pickled with its
    module.
    """

    def __init__(self, module: nn.Module, names: FrozenNames, *, norm_eval: bool) -> None:
        self.module = module
        self.names = names
        self.norm_eval = norm_eval
        self.mode = module.training
        self.frozen_parameters: list[str] = []

    def __call__(self, mode: bool = True) -> nn.Module:
        """``module.train(mode)``, except for the frozen parts."""
        type(self.module).train(self.module, mode)
        self.mode = mode
        self._set_evaluation()
        return self.module

    def attach(self) -> None:
        """Freeze the module from now on."""
        for name, parameter in self.module.named_parameters():
            if self.names.covers(name) and parameter.requires_grad:
                parameter.requires_grad_(False)
                parameter.grad = None  # an optimizer would take one more step with it
                self.frozen_parameters.append(name)
        self.module.train = self
        self._set_evaluation()

    def release(self) -> None:
        """Undo :meth:`attach`."""
        for name in self.frozen_parameters:
            self.module.get_parameter(name).requires_grad_(True)
        del self.module.train
        self.module.train(self.mode)

    def frozen_modules(self) -> dict[str, nn.Module]:
        """The frozen submodules by name within the module."""
        return {n: module for n, module in self.module.named_modules() if self.names.covers(n)}

    def _set_evaluation(self) -> None:
        norms = _norms(self.module) if self.norm_eval else {}
        for module in (*self.frozen_modules().values(), *norms.values()):
            module.training = False


def handle_of(module: nn.Module) -> FreezeHandle | None:
    """The handle of the policy applied to ``module`` itself."""
    handle = vars(module).get('train')
    return handle if isinstance(handle, FreezeHandle) else None


def _handles(model: nn.Module) -> dict[str, FreezeHandle]:
    """All handles within ``model``, by the dotted names of their modules."""
    found = {name: handle_of(module) for name, module in model.named_modules()}
    return {name: handle for name, handle in found.items() if handle is not None}


def _norms(module: nn.Module) -> dict[str, nn.Module]:
    """Norms whose running statistics make them depend on the mode."""
    return {
        name: norm
        for name, norm in module.named_modules()
        if isinstance(norm, _BatchNorm)
        or (isinstance(norm, _InstanceNorm) and norm.track_running_stats)
    }
