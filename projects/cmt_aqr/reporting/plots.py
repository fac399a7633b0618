"""Plots of a report, as SVG that stands inside of a page.

Shapes: L decoder layers, H heads.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

LINE, TEXT = '#d5dae1', '#3d4652'
COLOURS = ('#1f5fbf', '#d9730d', '#2a8c5a', '#9b3fa8', '#b8352a', '#5c6773')
_STYLE = {
    'font.family': 'sans-serif',
    'font.size': 9,
    'svg.fonttype': 'none',  # text stays text, in the font of the page
    'axes.edgecolor': LINE,
    'axes.labelcolor': TEXT,
    'xtick.color': TEXT,
    'ytick.color': TEXT,
    'text.color': TEXT,
}
Curve = Sequence[tuple[int, float]]


def draw_curves(panels: Mapping[str, Mapping[str, Curve]]) -> str:
    """Curves over the iterations, a panel for each title; a panel without a curve is left out.

    Args:
        panels: curves (iteration, value) by their label, by the title of their panel.
    """
    panels = {title: curves for title, curves in panels.items() if curves}
    with matplotlib.rc_context(_STYLE):
        rows = -(-len(panels) // 2)
        figure = Figure(figsize=(9, 2.6 * rows), layout='constrained')
        grid = figure.subplots(rows, 2, squeeze=False).flat
        for axes, (title, curves) in zip(grid, panels.items(), strict=False):
            for (label, curve), colour in zip(curves.items(), COLOURS, strict=False):
                mark = 'o' if len(curve) < 20 else ''
                axes.plot(*zip(*curve, strict=True), color=colour, lw=1.6, marker=mark, ms=3)
                axes.lines[-1].set_label(label)
            axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
            axes.set_xlabel('iteration')
            axes.grid(axis='y', color=LINE, lw=0.6)
            axes.spines[['top', 'right', 'left']].set_visible(False)
            axes.tick_params(length=0)
            if len(curves) > 1:
                axes.legend(frameon=False, fontsize=8, labelspacing=0.2)
        for axes in figure.axes[len(panels) :]:
            axes.set_visible(False)
        return _svg(figure)


def draw_heads(records: Mapping[str, Sequence[Sequence[float]]]) -> str:
    """LiDAR share (L, H) of every layer and head, as tiles with its value, a panel a record."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.5 * len(records), 2.4), layout='constrained')
        for axes, (title, shares) in zip(
            figure.subplots(1, len(records), squeeze=False).flat, records.items(), strict=True
        ):
            shares = np.asarray(shares)
            axes.imshow(shares, cmap='RdBu', vmin=-0.7, vmax=1.7, aspect='auto')
            for (layer, head), share in np.ndenumerate(shares):
                axes.text(head, layer, f'{share:.2f}', ha='center', va='center', fontsize=8)
            axes.set_title(title, loc='left', fontsize=10, fontweight='bold')
            axes.set_xticks(range(shares.shape[1]))
            axes.set_yticks(range(shares.shape[0]))
            axes.set(xlabel='head', ylabel='decoder layer')
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
        return _svg(figure)


def draw_robustness(models: Mapping[str, Mapping[str, Mapping]]) -> str:
    """NDS of every model under every failure, with its interval.

    Args:
        models: ``value`` and ``interval`` of the NDS, by failure, by model.
    """
    failures = [*next(iter(models.values()))]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9, 1 + len(failures) * (0.22 + 0.1 * len(models))))
        axes = figure.subplots()
        for index, (model, scores) in enumerate(models.items()):
            rows = np.arange(len(failures)) + 0.6 * (index + 0.5) / len(models) - 0.3
            low, high = np.transpose([scores[name]['interval'] for name in failures]) * 100
            colour = COLOURS[index % len(COLOURS)]
            axes.hlines(rows, low, high, color=colour, lw=1.6, alpha=0.5)
            values = [100 * scores[name]['value'] for name in failures]
            axes.plot(values, rows, 'o', color=colour, ms=5, label=model)
        axes.set_yticks(range(len(failures)), failures)
        axes.set_ylim(len(failures) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel('NDS, points, with its 95 % interval over the frames')
        axes.grid(axis='x', color=LINE, lw=0.6)
        axes.spines[['top', 'right', 'left', 'bottom']].set_visible(False)
        axes.tick_params(length=0)
        axes.legend(frameon=False, loc='lower right')
        return _svg(figure)


def _svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element."""
    buffer = io.StringIO()
    canvas = figure.canvas
    canvas.print_figure(buffer, format='svg', bbox_inches='tight', metadata={'Date': None})
    text = buffer.getvalue()
    return text[text.index('<svg') :]
