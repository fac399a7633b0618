"""Checks that what should be frozen is frozen.

No check changes the model or trusts a policy: each one inspects the tensors, modules and optimizer
groups themselves.
"""

import enum
import functools
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from mmengine.optim import OptimWrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .freeze_handle import eval_norms, frozen_modules
from .names import by_part, is_within, part_names

_NAMES_SHOWN = 20


class Kind(enum.Enum):
    """Kinds of violations, each with a title and a remedy."""

    UNFILLED = (
        'frozen tensors that no checkpoint filled',
        'set load_from to a checkpoint that contains them, or list the modules that may keep their '
        'initial values: FreezeAuditHook(allow_unfilled=[...])',
    )
    IN_OPTIMIZER = (
        'frozen parameters in an optimizer group',
        "leave them out: optim_wrapper=dict(constructor='StrictOptimWrapperConstructor', ...)",
    )
    REQUIRES_GRAD = (
        'frozen parameters that require a gradient again',
        'find the call of requires_grad_(True); code that unfreezes on purpose calls '
        'FreezeAuditHook.rebase',
    )
    HAS_GRADIENT = (
        'frozen parameters with a gradient',
        'find the code that sets requires_grad during the forward pass, or writes to their .grad',
    )
    IN_TRAINING_MODE = (
        'modules in training mode that must be in evaluation mode',
        'freeze them by a FreezePolicy, which holds through every train(), or set norm_eval=True',
    )
    CHANGED = (
        'frozen tensors whose values changed',
        'find what writes to them: an optimizer, a norm in training mode during the forward pass, '
        'or code that assigns to weights or buffers',
    )
    AVERAGE_DIFFERS = (
        'frozen tensors that differ in the averaged model (EMA)',
        'frozen tensors must reach the averaged model unchanged; was it resumed from another run?',
    )
    RATES_OVERRIDDEN = (
        'schedules that override learning rates by module',
        'give every end of a schedule as a ratio to its start, as in configs/_base_/schedules',
    )

    def __init__(self, title: str, remedy: str) -> None:
        self.title = title
        self.remedy = remedy


@dataclass(frozen=True)
class Violation:
    """Tensors or modules with the same fault."""

    kind: Kind
    names: tuple[str, ...]
    """full dotted names"""
    details: str = ''
    """description of the names; if empty, the first 20 of them"""
    ranks: tuple[int, ...] = ()
    """the processes that found it, if there are several"""

    def __str__(self) -> str:
        found = f' (found by rank {", ".join(map(str, self.ranks))})' if self.ranks else ''
        details = self.details or _shorten(self.names)
        return (
            f'{self.kind.title} ({len(self.names)}){found}: {details}\n  remedy: {self.kind.remedy}'
        )

    def describe(self) -> dict:
        """Plain data with all names."""
        return {
            'kind': self.kind.title,
            'names': list(self.names),
            'details': self.details,
            'ranks': list(self.ranks),
        }


class FreezeViolation(RuntimeError):  # noqa: N818  (its name in logs and reports)
    """A frozen part is not really frozen, or a module does not get its learning rate.

    Attributes:
        violations: all violations found.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__('the audit found:\n' + '\n'.join(map(str, violations)))
        self.violations = tuple(violations)


def merge_ranks(by_rank: Sequence[Sequence[Violation]]) -> list[Violation]:
    """The violations of all ranks, each listed once with the ranks that found it."""
    ranks: dict[Violation, list[int]] = {}
    for rank, violations in enumerate(by_rank):
        for violation in violations:
            ranks.setdefault(violation, []).append(rank)
    if len(by_rank) == 1:
        return list(ranks)
    return [replace(violation, ranks=tuple(found)) for violation, found in ranks.items()]


def _shorten(names: Sequence[str]) -> str:
    more = len(names) - _NAMES_SHOWN
    return ', '.join(names[:_NAMES_SHOWN]) + (f' and {more} more' if more > 0 else '')


# The frozen parts of a model.


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """The parts of a model that must not change, by full dotted name."""

    parameters: Mapping[str, nn.Parameter]
    """parameters that require no gradient or belong to frozen modules"""
    buffers: Mapping[str, Tensor]
    """buffers of frozen modules and of norms that stay in evaluation mode"""
    modules: Mapping[str, nn.Module]
    """modules that must be in evaluation mode"""
    loadable: tuple[str, ...]
    """names of the parameters and persistent buffers"""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers."""
        return {**self.parameters, **self.buffers}

    @functools.cached_property
    def names_by_id(self) -> dict[int, str]:
        """Name of each parameter by its ``id``."""
        return {id(parameter): name for name, parameter in self.parameters.items()}


def find_frozen(model: nn.Module) -> Frozen:
    """The frozen parts of ``model``, whether frozen by a policy or by hand.

    Frozen are the modules of policies, the norms of every ``norm_eval``, all parameters without
    ``requires_grad``, and all modules that contain only such parameters. The latter must be in
    evaluation mode only if the mode affects them: norms with running statistics, and dropout of any
    kind.
    """
    by_policy = frozen_modules(model)
    by_hand = _without_trainable_parameters(model)
    norms = eval_norms(model)
    parameters = {
        name: parameter
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad or name.rpartition('.')[0] in by_policy
    }
    buffers, persistent = {}, []
    for prefix, module in {**by_hand, **by_policy, **norms}.items():
        for name, buffer in module.named_buffers(prefix, recurse=False):
            buffers[name] = buffer
            if name.rpartition('.')[2] not in module._non_persistent_buffers_set:
                persistent.append(name)
    depending_on_mode = {n: module for n, module in by_hand.items() if _depends_on_mode(module)}
    return Frozen(
        parameters=parameters,
        buffers=buffers,
        modules={**depending_on_mode, **by_policy, **norms},
        loadable=(*parameters, *persistent),
    )


def _without_trainable_parameters(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with frozen parameters only, and everything below them."""
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():  # parents come before their children
        inside = name != '' and name.rpartition('.')[0] in found
        trains = [parameter.requires_grad for parameter in module.parameters()]
        if inside or (trains and not any(trains)):
            found[name] = module
    return found


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, _NormBase):
        return module.track_running_stats
    # Dropout, Dropout2d, AlphaDropout, DropPath, DropBlock, StochasticDepth of many libraries.
    name = type(module).__name__.lower()
    return 'drop' in name or 'stochasticdepth' in name


# Checks before and during training. Those of parameters and modes read attributes only; for 1,000
# modules they take less than a millisecond together.


def check_filled(
    model: nn.Module, frozen: Frozen, filled: Collection[str], allowed: tuple[str, ...] = ()
) -> list[Violation]:
    """Find frozen tensors that no checkpoint filled, outside of the ``allowed`` modules."""
    names = [n for n in frozen.loadable if n not in filled and not is_within(n, allowed)]
    if not names:
        return []
    parts = part_names(model)
    unfilled, total = by_part(names, parts), by_part(frozen.loadable, parts)
    lines = [
        f'{part}: all {len(total[part])} tensors'
        if len(missing) == len(total[part]) > 1
        else f'{part}: {len(missing)} of {len(total[part])} frozen tensors: {_shorten(missing)}'
        for part, missing in unfilled.items()
    ]
    return [Violation(Kind.UNFILLED, tuple(names), _indented(lines))]


def check_parameters(frozen: Frozen, optim_wrapper: OptimWrapper) -> list[Violation]:
    """Find frozen parameters that take part in training."""
    parameters, names = frozen.parameters.items(), frozen.names_by_id
    optimized = [p for group in optim_wrapper.optimizer.param_groups for p in group['params']]
    return _violations(
        {
            Kind.REQUIRES_GRAD: [name for name, p in parameters if p.requires_grad],
            Kind.HAS_GRADIENT: [name for name, p in parameters if p.grad is not None],
            Kind.IN_OPTIMIZER: [names[id(p)] for p in optimized if id(p) in names],
        }
    )


def check_modes(frozen: Frozen) -> list[Violation]:
    """Find frozen modules in training mode; meaningful after the first ``train()`` of a run."""
    training = [name for name, module in frozen.modules.items() if module.training]
    return _violations({Kind.IN_TRAINING_MODE: training})


def check_rates(fault: str | None) -> list[Violation]:
    """Violation for the fault found by :func:`.schedule.check_schedule`."""
    if fault is None:
        return []
    details = _indented(fault.splitlines())
    return [Violation(Kind.RATES_OVERRIDDEN, ('param_scheduler',), details)]


def _violations(found: Mapping[Kind, Sequence[str]]) -> list[Violation]:
    return [Violation(kind, tuple(names)) for kind, names in found.items() if names]


def _indented(lines: Sequence[str]) -> str:
    return ''.join(f'\n    {line}' for line in lines)


# Comparison by value.


def digest(tensor: Tensor) -> str:
    """Hash of type, shape and bytes, independent of the memory format and computed on the CPU."""
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    hashed = hashlib.blake2b(f'{tensor.dtype}{tuple(tensor.shape)}'.encode(), digest_size=16)
    hashed.update(data.numpy())
    return hashed.hexdigest()


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Digest of each tensor."""
    return {name: digest(tensor) for name, tensor in tensors.items()}


def total_digest(parts: Mapping[str, str]) -> str:
    """One digest of all names and their digests, independent of their order."""
    lines = sorted(f'{name} {value}\n' for name, value in parts.items())
    return hashlib.blake2b(''.join(lines).encode(), digest_size=16).hexdigest()


def check_values(
    model: nn.Module, expected: Mapping[str, str], kind: Kind = Kind.CHANGED
) -> list[Violation]:
    """Find tensors of ``model`` that are missing or whose digest is not the expected one."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = [
        name
        for name, value in expected.items()
        if name not in tensors or digest(tensors[name]) != value
    ]
    return _violations({kind: changed})
