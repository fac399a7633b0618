"""Tables, as Markdown or as aligned text, and durations."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns except the first are aligned to the right."""
    rule = ['---'] + ['---:'] * (len(head) - 1)
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in (head, rule, *rows))


def align(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells as text, with the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return '\n'.join(
        '  '.join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one second."""
    return f'{seconds:.2f} s' if seconds >= 1 else f'{1000 * seconds:.1f} ms'
