"""Dotted names of submodules and parameters."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn


def is_within(name: str, roots: Iterable[str]) -> bool:
    """Whether ``name`` equals one of ``roots`` or lies below it; the root '' contains all names."""
    return any(root in ('', name) or name.startswith(f'{root}.') for root in roots)


def join(prefix: str, name: str) -> str:
    """'a.b' and 'c' -> 'a.b.c'; either may be empty."""
    return '.'.join(part for part in (prefix, name) if part)


def matching_submodules(
    module: nn.Module, patterns: Sequence[str], *, option: str
) -> tuple[str, ...]:
    """Names of the submodules that match any pattern.

    Patterns have the syntax of `fnmatch` and are compared with the whole dotted name and with its
    end: 'norm1', 'layer4.*.conv3'.

    Raises:
        ValueError: a pattern matches no submodule; ``option`` names the setting that holds it.
    """
    names = [name for name, _ in module.named_modules() if name]
    matches = []
    for pattern in patterns:
        found = [n for n in names if fnmatchcase(n, pattern) or fnmatchcase(n, f'*.{pattern}')]
        if not found:
            children = ', '.join(name for name, _ in module.named_children()) or 'no submodules'
            raise ValueError(
                f'{option} {pattern!r} matches no submodule; {type(module).__name__} contains '
                f'{children}'
            )
        matches += found
    return tuple(matches)


def part_names(model: nn.Module) -> list[str]:
    """The parts that a table lists: the model's children, and the children of its heads."""
    names: list[str] = []
    for name, child in model.named_children():
        inner = [f'{name}.{n}' for n, _ in child.named_children()] if name.endswith('head') else []
        names += inner or [name]
    return names


def by_part(names: Iterable[str], parts: Sequence[str]) -> dict[str, list[str]]:
    """Tensor names sorted by part; a tensor outside all parts counts as its outermost module."""
    sorted_names: dict[str, list[str]] = {}
    for name in names:
        part = next((p for p in parts if is_within(name, (p,))), name.partition('.')[0])
        sorted_names.setdefault(part, []).append(name)
    return sorted_names
