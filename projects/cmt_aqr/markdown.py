"""Tables and durations as Markdown."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns except the first are aligned to the right."""
    rule = ['---'] + ['---:'] * (len(head) - 1)
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (head, rule, *rows))


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one second."""
    return f'{seconds:.2f} s' if seconds >= 1 else f'{1000 * seconds:.1f} ms'
