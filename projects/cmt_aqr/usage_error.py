"""The error of a wrong command line or config, and hints at what was meant; no dependencies."""

import difflib
from collections.abc import Iterable, Mapping
from types import MappingProxyType


class UsageError(Exception):
    """The command cannot run as given; the message says why and how to fix it."""


def did_you_mean(
    name: str,
    known: Iterable[str],
    *,
    cutoff: float = 0.6,
    written: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Hint ``; did you mean X?`` at the most similar known name; empty if none is similar.

    Args:
        name: the unknown name.
        known: the names to choose from.
        cutoff: least similarity, from 0 to 1, see :func:`difflib.get_close_matches`.
        written: how known names are written, where it is another way.
    """
    nearest = difflib.get_close_matches(name, sorted(set(known)), n=1, cutoff=cutoff)
    return f'; did you mean {written.get(nearest[0], nearest[0])}?' if nearest else ''
