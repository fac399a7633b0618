"""What an audit found as plain data, for the JSON files of a run and of a check without one."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from .audit import Frozen, Violation
from .table import Row


def describe_frozen(frozen: Frozen, table: Sequence[Row]) -> dict:
    """The table by module, and how much is frozen."""
    return {
        'modules': [dataclasses.asdict(row) for row in table],
        'frozen_parameters': len(frozen.parameters),
        'frozen_buffers': len(frozen.buffers),
        'modules_in_evaluation_mode': len(frozen.modules),
    }


def describe_filled(frozen: Frozen, filled: Mapping[str, str]) -> dict:
    """Where frozen tensors came from.

    Args:
        frozen: what is frozen in the model.
        filled: source of each tensor that a checkpoint filled, by its name.
    """
    return {
        'filled_from': dict(Counter(filled[name] for name in frozen.loadable if name in filled)),
        'unfilled': [name for name in frozen.loadable if name not in filled],
    }


def describe_violations(violations: Sequence[Violation]) -> list[dict]:
    """Each violation with its names in full."""
    return [
        {
            'kind': violation.kind.title,
            'names': list(violation.names),
            'details': violation.details,
            'ranks': list(violation.ranks),
        }
        for violation in violations
    ]
