"""Plot of a comparison under sensor failures."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import replacing
from .bootstrap import Interval
from .robustness import CLEAN, MEAN, Comparison

# Share of the height of a row that all models together occupy.
_SPREAD = 0.6
# Minimum range of differences to each side, in points, so that small ones look small.
_LEAST_RANGE = 1.0
_LINE, _TEXT = '#c9ced6', '#22272e'


def draw_comparison(comparison: Comparison, path: Path) -> None:
    """Plot the NDS under every failure and the differences from the first model, with intervals.

    Args:
        comparison: results of one or several models.
        path: of the picture; its ending says the format.
    """
    others = len(comparison.models) > 1
    rows = (CLEAN, *(row.name for row in comparison.rows), MEAN)
    figure = Figure(
        figsize=(11 if others else 7, 1.2 + len(rows) * (0.2 + 0.1 * len(comparison.models))),
        layout='constrained',
    )
    axes = np.atleast_1d(figure.subplots(1, 2 if others else 1, sharey=True))
    _draw_scores(axes[0], comparison, rows)
    if others:
        _draw_differences(axes[1], comparison, rows)
    for panel in axes:
        _finish(panel, rows)
    figure.legend(
        *axes[0].get_legend_handles_labels(),
        loc='outside upper center',
        ncols=min(4, len(comparison.models)),
        frameon=False,
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150)


def _draw_scores(axes: Axes, comparison: Comparison, rows: Sequence[str]) -> None:
    for index, model in enumerate(comparison.models):
        values = [float(model.kept[row].nds) for row in rows]
        intervals = [Interval.of(model.draws[row].nds) for row in rows]
        _draw_points(axes, comparison, index, values, intervals, label=model.name)
    axes.set_xlabel('NDS, points')
    axes.set_xlim(left=0)


def _draw_differences(axes: Axes, comparison: Comparison, rows: Sequence[str]) -> None:
    axes.axvline(0, color=_colour(0), lw=1)
    for index, model in enumerate(comparison.models[1:], start=1):
        changes = [comparison.difference(model, row, 'nds') for row in rows]
        values = [change.value for change in changes]
        _draw_points(axes, comparison, index, values, [change.interval for change in changes])
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -_LEAST_RANGE), max(high, _LEAST_RANGE))
    axes.set_xlabel(f'NDS over that of {comparison.models[0].name}, points')


def _draw_points(
    axes: Axes,
    comparison: Comparison,
    index: int,
    values: Sequence[float],
    intervals: Sequence[Interval],
    label: str | None = None,
) -> None:
    """Draw the values of one model as dots, with their intervals as lines."""
    step = _SPREAD / len(comparison.models)
    heights = np.arange(len(values)) + step * (index - (len(comparison.models) - 1) / 2)
    low, high = 100 * np.array(intervals).T
    axes.hlines(heights, low, high, color=_colour(index), lw=1.4, alpha=0.6)
    axes.plot(100 * np.array(values), heights, 'o', ms=4.5, color=_colour(index), label=label)


def _finish(axes: Axes, rows: Sequence[str]) -> None:
    """Label the rows from top to bottom, and separate the clean score and the mean."""
    names = [row.replace('_', ' ') for row in rows]
    names[-1] = 'mean of failures'
    axes.set_yticks(range(len(rows)), names, color=_TEXT)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for height in (0.5, len(rows) - 1.5):
        axes.axhline(height, color=_TEXT, lw=0.8)
    axes.grid(axis='x', color=_LINE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines[['top', 'right', 'left', 'bottom']].set_visible(False)


def _colour(index: int) -> tuple[float, ...]:
    return matplotlib.colormaps['tab10'](index % 10)
