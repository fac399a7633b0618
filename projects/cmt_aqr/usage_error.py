"""The error of a wrong command line; imports without MMEngine."""

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """The command cannot run as given; the message says why and how to fix it."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Ending of a message about an unknown name: the nearest known one, or all of them."""
    known = [*known]
    nearest = difflib.get_close_matches(name, known, n=1)
    return f'did you mean {nearest[0]}?' if nearest else f'known: {", ".join(known)}'
