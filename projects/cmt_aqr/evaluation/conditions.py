"""Choice of the failures and severities of a protocol, by name."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from ..datasets.failures.suite import Row, protocol
from .robustness import CLEAN


def choose_rows(rows: Sequence[Row], names: Sequence[str] | None) -> list[Row]:
    """Returns the rows of the named failures and severities, in the order of the protocol.

    Args:
        rows: rows of the protocol.
        names: names of failures, for all their severities, or of single conditions such as
            ``fog_2``; None for all rows.

    Raises:
        ValueError: the protocol does not have a name.
    """
    if names is None:
        return list(rows)
    known = [name for row in rows for name in (row.name, *row.conditions)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean {near[0]}?' if near else ''
            raise ValueError(
                f'no condition {name!r}; it must be one of '
                f'{", ".join(row.name for row in rows)}, with _1, _2, ... for one severity; '
                f'{hint}'.rstrip('; ')
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
    """Maps the name of each condition to the config of its failure, clean first."""
    conditions: dict[str, dict[str, Any] | None] = {CLEAN: None}
    for row in rows:
        conditions.update(row.conditions)
    return conditions


def named_failure(name: str, *, ann_file: str) -> dict[str, Any]:
    """Returns the config of one failure, such as ``fog_2``; without a severity, of the mildest.

    Args:
        name: name of a condition or of a failure of the protocol ``all``.
        ann_file: info file of the dataset, see :func:`~.suite.protocol`.

    Raises:
        ValueError: there is no such failure.
    """
    (row,) = choose_rows(protocol('all', ann_file=ann_file), [name])
    return next(iter(row.conditions.values()))
