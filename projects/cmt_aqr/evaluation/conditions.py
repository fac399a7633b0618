"""Which rows and severities of a protocol are tested."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from ..datasets.failures.suite import Row
from .robustness import CLEAN


def choose_rows(rows: Sequence[Row], names: Sequence[str] | None) -> list[Row]:
    """The named failures and severities, in the order of the protocol.

    Args:
        rows: of the protocol.
        names: of failures, with all their severities, or of single conditions; None for all.

    Raises:
        ValueError: a name that the protocol does not have.
    """
    if names is None:
        return list(rows)
    known = [name for row in rows for name in (row.name, *row.conditions)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]}?' if near else ''
            raise ValueError(
                f'no condition {name!r}; there are {", ".join(row.name for row in rows)}, each '
                f'with _1, _2, ... for one severity; {hint}'.rstrip('; ')
            )
    chosen = [
        dataclasses.replace(
            row,
            severities=tuple(
                severity
                for severity, name in zip(row.severities, row.conditions, strict=True)
                if row.name in names or name in names
            ),
        )
        for row in rows
    ]
    return [row for row in chosen if row.severities]


def conditions_of(rows: Sequence[Row]) -> dict[str, dict[str, Any] | None]:
    """Config of the failure by the name of the condition; the first is without a failure."""
    conditions: dict[str, dict[str, Any] | None] = {CLEAN: None}
    for row in rows:
        conditions.update(row.conditions)
    return conditions
