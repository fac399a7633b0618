"""What is frozen in a model, and whether it really is: the checks of an audit, without a Runner.

Nothing here changes a model, and nothing relies on what a policy says it did: each check looks at
the tensors, modules and optimizer groups themselves.
"""

from __future__ import annotations

import enum
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.hooks import RemovableHandle

from .keeper import eval_norms, frozen_modules
from .layers import is_within
from .table import by_part, part_names

_NAMES_SHOWN = 20


class Kind(enum.Enum):
    """What can be wrong with what is frozen and with rates by module, and what to do about it."""

    UNFILLED = (
        'frozen tensors that no checkpoint filled',
        'set load_from to a checkpoint that holds them, or name the modules that may stay as '
        'initialised: FreezeAuditHook(allow_unfilled=[...])',
    )
    IN_OPTIMIZER = (
        'frozen parameters in a group of the optimizer',
        "leave them out: optim_wrapper=dict(constructor='StrictOptimWrapperConstructor', ...)",
    )
    REQUIRES_GRAD = (
        'frozen parameters that require a gradient again',
        'find what calls requires_grad_(True); whoever lets frozen parameters train on purpose '
        'calls FreezeAuditHook.rebase',
    )
    HAS_GRADIENT = (
        'frozen parameters with a gradient',
        'find what lets them require one during the forward, or writes to their .grad',
    )
    IN_TRAINING_MODE = (
        'modules in training mode that must be in evaluation mode',
        'freeze them by a FreezePolicy, which holds through every train(), or set norm_eval=True',
    )
    CHANGED = (
        'frozen tensors changed in value',
        'find what writes to them: an optimizer, a norm in training mode during the forward, or '
        'code that assigns to weights or buffers',
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
    """Tensors or modules with the same thing wrong.

    Attributes:
        kind: what is wrong.
        names: full dotted names.
        details: lines that tell the names; by default the first 20 and how many more there are.
        ranks: the processes that saw it, where there are several.
    """

    kind: Kind
    names: tuple[str, ...]
    details: str = ''
    ranks: tuple[int, ...] = ()

    def __str__(self) -> str:
        seen = f' (seen by rank {", ".join(map(str, self.ranks))})' if self.ranks else ''
        details = self.details or shorten(self.names)
        return (
            f'{self.kind.title} ({len(self.names)}){seen}: {details}\n  remedy: {self.kind.remedy}'
        )


class FreezeViolation(RuntimeError):  # noqa: N818  (what it is called in logs and reports)
    """Something that is meant to be frozen is not, or does not get the rate it is meant to.

    Attributes:
        violations: all that were found.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__('the audit found:\n' + '\n'.join(map(str, violations)))
        self.violations = tuple(violations)


def shorten(names: Sequence[str]) -> str:
    """The first 20 names and how many more there are."""
    more = len(names) - _NAMES_SHOWN
    return ', '.join(names[:_NAMES_SHOWN]) + (f' and {more} more' if more > 0 else '')


def merge_ranks(by_rank: Sequence[Sequence[Violation]]) -> list[Violation]:
    """One list of what the ranks have found, each violation with the ranks that saw it."""
    ranks: dict[Violation, list[int]] = {}
    for rank, violations in enumerate(by_rank):
        for violation in violations:
            ranks.setdefault(violation, []).append(rank)
    if len(by_rank) == 1:
        return list(ranks)
    return [replace(violation, ranks=tuple(seen)) for violation, seen in ranks.items()]


# What is frozen.


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """All of a model that must not change, by full dotted names.

    Attributes:
        parameters: those that require no gradient, and those of frozen modules.
        buffers: those of frozen modules, and of norms that stay in evaluation mode.
        modules: those that must be in evaluation mode.
        loadable: names of the parameters and buffers that a checkpoint holds.
    """

    parameters: Mapping[str, nn.Parameter]
    buffers: Mapping[str, Tensor]
    modules: Mapping[str, nn.Module]
    loadable: tuple[str, ...]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers."""
        return {**self.parameters, **self.buffers}

    @functools.cached_property
    def names_by_id(self) -> dict[int, str]:
        """Name of each parameter by its ``id``: for tensors, equality is no look-up."""
        return {id(parameter): name for name, parameter in self.parameters.items()}


def find_frozen(model: nn.Module) -> Frozen:
    """Find what is frozen, by a policy or by hand.

    Besides what policies keep frozen, and the norms that any ``norm_eval`` keeps in evaluation
    mode, this is every parameter that requires no gradient, and the inside of every module all of
    whose parameters are such. Inside those, only modules that behave otherwise in training must be
    in evaluation mode: norms with running statistics, and all kinds of dropout.
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
    """Modules that have parameters, all of them frozen, and all that lies inside of them."""
    frozen, trainable = set(), set()
    for name, parameter in model.named_parameters(remove_duplicate=False):
        (trainable if parameter.requires_grad else frozen).update(_owners(name))
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():  # parents come before their children
        inside = name != '' and name.rpartition('.')[0] in found
        if inside or (name in frozen and name not in trainable):
            found[name] = module
    return found


def _owners(name: str) -> Iterator[str]:
    """'a.b.weight' -> 'a.b', 'a', ''."""
    while name:
        name = name.rpartition('.')[0]
        yield name


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, _NormBase):
        return module.track_running_stats
    # Dropout, Dropout2d, AlphaDropout, DropPath, DropBlock, StochasticDepth of many libraries.
    name = type(module).__name__.lower()
    return 'drop' in name or 'stochasticdepth' in name


# Filled from a checkpoint.


class LoadWatch:
    """Notes which tensors of a model a checkpoint really fills, while it is loaded.

    It looks over the shoulder of every module's own loading, where names have been converted and
    kernels permuted. So it sees ``load_from``, a resumed run and ``init_cfg`` of type `Pretrained`
    alike, and a tensor that is missing or of the wrong shape, which mmengine only warns of, is not
    among the filled.

    Args:
        model: not wrapped; watched until :meth:`close`.
        source: name of where the tensors of the next load come from; may be set anew.
    """

    def __init__(self, model: nn.Module, source: str = 'checkpoint') -> None:
        self.source = source
        self._filled: dict[tuple[nn.Module, str], str] = {}
        self._handles = list(self._watch(model))

    def close(self) -> None:
        """Stop watching; what was seen stays known."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def filled(self, model: nn.Module) -> dict[str, str]:
        """Source of each filled tensor, by its full dotted name."""
        return {
            _join(prefix, name): self._filled[module, name]
            for prefix, module in model.named_modules(remove_duplicate=False)
            for name in _own_tensors(module)
            if (module, name) in self._filled
        }

    def _watch(self, model: nn.Module) -> Iterator[RemovableHandle]:
        watched = {module for module in model.modules() if any(_own_tensors(module))}
        loading = {}

        # Functions, not methods: a deep copy of the model, as EMA makes one, shares functions but
        # would copy this object along with its methods. A copy's own modules are not watched.
        def before(module, state_dict, prefix, metadata, strict, missing, unexpected, errors):
            if module in watched:
                loading[module] = (state_dict, prefix, errors)

        def after(module, incompatible_keys):
            if module not in loading:
                return
            state_dict, prefix, errors = loading.pop(module)
            for name in _own_tensors(module):
                key = prefix + name
                if key in state_dict and not _is_refused(key, errors):
                    self._filled[module, name] = self.source

        for module in watched:
            yield module.register_load_state_dict_pre_hook(before)
            yield module.register_load_state_dict_post_hook(after)


def _own_tensors(module: nn.Module) -> Iterator[str]:
    for tensors in (module._parameters, module._buffers):
        yield from (name for name, tensor in tensors.items() if tensor is not None)


def _is_refused(key: str, errors: Iterable[str]) -> bool:
    """Whether a message of torch or spconv says that this tensor could not be copied."""
    return any(f'mismatch for {key}:' in error or f'"{key}"' in error for error in errors)


def matching_modules(model: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the modules that any of the patterns matches, as `always_trainable` reads them.

    Raises:
        ValueError: a pattern matches none.
    """
    names = [name for name, _ in model.named_modules() if name]
    found: list[str] = []
    for pattern in patterns:
        matches = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f'*.{pattern}')]
        if not matches:
            children = ', '.join(name for name, _ in model.named_children())
            raise ValueError(
                f'allow_unfilled {pattern!r} matches no module; {type(model).__name__} has '
                f'{children} and what lies below'
            )
        found += matches
    return tuple(found)


def check_filled(
    model: nn.Module, frozen: Frozen, filled: Collection[str], allowed: tuple[str, ...] = ()
) -> list[Violation]:
    """Find frozen tensors that no checkpoint filled.

    Args:
        model: not wrapped.
        frozen: what is frozen in it.
        filled: names of the tensors that a checkpoint filled.
        allowed: names of the modules whose tensors may stay as initialised.
    """
    names = [n for n in frozen.loadable if n not in filled and not is_within(n, allowed)]
    if not names:
        return []
    parts = part_names(model)
    unfilled, total = by_part(names, parts), by_part(frozen.loadable, parts)
    lines = [
        f'{part}: all {len(total[part])} tensors'
        if len(missing) == len(total[part]) > 1
        else f'{part}: {len(missing)} of {len(total[part])} frozen tensors: {shorten(missing)}'
        for part, missing in unfilled.items()
    ]
    return [Violation(Kind.UNFILLED, tuple(names), ''.join(f'\n    {line}' for line in lines))]


# While it trains.


# Both read attributes only and take well under a millisecond together for 1,000 modules.


def check_parameters(
    frozen: Frozen, optim_wrapper: OptimWrapper | OptimWrapperDict
) -> list[Violation]:
    """Find frozen parameters that take part in training."""
    parameters = frozen.parameters.items()
    return _violations(
        {
            Kind.REQUIRES_GRAD: [name for name, p in parameters if p.requires_grad],
            Kind.HAS_GRADIENT: [name for name, p in parameters if p.grad is not None],
            Kind.IN_OPTIMIZER: _optimized(frozen, optim_wrapper),
        }
    )


def check_modes(frozen: Frozen) -> list[Violation]:
    """Find frozen modules in training mode; before the first ``train()`` of a run, many are."""
    training = [name for name, module in frozen.modules.items() if module.training]
    return _violations({Kind.IN_TRAINING_MODE: training})


def _violations(found: Mapping[Kind, Sequence[str]]) -> list[Violation]:
    return [Violation(kind, tuple(names)) for kind, names in found.items() if names]


def _optimized(frozen: Frozen, optim_wrapper: OptimWrapper | OptimWrapperDict) -> list[str]:
    names = frozen.names_by_id
    return [
        names[id(parameter)]
        for group in param_groups(optim_wrapper)
        for parameter in group['params']
        if id(parameter) in names
    ]


def param_groups(optim_wrapper: OptimWrapper | OptimWrapperDict) -> Iterator[dict]:
    """The groups of the optimizer, or of all of them."""
    if isinstance(optim_wrapper, OptimWrapperDict):
        for wrapper in optim_wrapper.values():
            yield from wrapper.param_groups
    else:
        yield from optim_wrapper.param_groups


def check_rates(faults: Sequence[str]) -> list[Violation]:
    """Violation of what a schedule does to the rates, see :func:`.schedule.plan_rates`."""
    if not faults:
        return []
    details = ''.join(f'\n    {line}' for fault in faults for line in fault.splitlines())
    return [Violation(Kind.RATES_OVERRIDDEN, ('param_scheduler',), details)]


# By value.


def digest(tensor: Tensor) -> str:
    """Hash of type, shape and bytes, as stored, whatever the memory format.

    The tensor is copied to the CPU for it, if it is not there, and no longer kept.
    """
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    hashed = hashlib.blake2b(f'{tensor.dtype}{tuple(tensor.shape)}'.encode(), digest_size=16)
    hashed.update(data.numpy())
    return hashed.hexdigest()


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Digest of each tensor, taken one after the other."""
    return {name: digest(tensor) for name, tensor in tensors.items()}


def total_digest(parts: Mapping[str, str]) -> str:
    """One digest of all names and their digests, in any order."""
    lines = sorted(f'{name} {value}\n' for name, value in parts.items())
    return hashlib.blake2b(''.join(lines).encode(), digest_size=16).hexdigest()


def check_values(
    model: nn.Module, expected: Mapping[str, str], kind: Kind = Kind.CHANGED
) -> list[Violation]:
    """Find tensors of ``model`` whose digest is not the expected one, or that are gone."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = [
        name
        for name, value in expected.items()
        if name not in tensors or digest(tensors[name]) != value
    ]
    return _violations({kind: changed})


def _join(prefix: str, name: str) -> str:
    return f'{prefix}.{name}' if prefix else name
