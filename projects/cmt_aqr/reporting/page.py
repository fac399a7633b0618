"""The page of a run: one HTML file that needs nothing else, neither files nor a network."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import jinja2
from markupsafe import Markup

from .plots import draw_curves, draw_heads, draw_robustness
from .run import Run

MAX_PICTURES = 12
WIDTH = 1400
"""pixels; larger pictures are reduced"""
_TEMPLATE = Path(__file__).with_name('page.html')
_LOSSES = ('loss_cls', 'loss_bbox', 'dn_loss_cls', 'dn_loss_bbox', 'loss_reliability')
_PANELS = {
    'Loss': ('loss',),
    'Losses of the last layer': _LOSSES,
    'Gradient norm': ('grad_norm',),
    'Learning rate (of the first group)': ('lr',),
}
_ROUTING_PANELS = {
    'LiDAR share of attention': ('lidar_share',),
    'Gap': ('gap',),
    'Leverage': ('leverage',),
    'Mean router weights': ('w_lidar', 'w_camera'),
}


def make_page(run: Run, title: str) -> str:
    """HTML of the page; parts that the run has not are replaced by how to make them."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=_number, rates=_rates, change=_change)
    curves, pictures, robustness = run.curves(), run.pictures(), run.robustness()
    return environment.from_string(_TEMPLATE.read_text()).render(
        title=title,
        folder=run.folder,
        info=run.info(),
        scores=run.scores(),
        audit=run.audit(),
        losses=_curves(curves, _PANELS),
        routing=_curves(curves, _ROUTING_PANELS),
        heads=_heads(run.routing()),
        robustness=robustness,
        robustness_plot=robustness and _robustness_plot(robustness),
        pictures=[(path.relative_to(run.folder), _embed(path)) for path in pictures[:MAX_PICTURES]],
        more_pictures=max(0, len(pictures) - MAX_PICTURES),
        config=run.config(),
    )


def _curves(curves: Mapping[str, list], panels: Mapping[str, Sequence[str]]) -> Markup | None:
    chosen = {
        title: {name: curves[name] for name in names if name in curves}
        for title, names in panels.items()
    }
    return Markup(draw_curves(chosen)) if any(chosen.values()) else None


def _heads(routing: Sequence[dict]) -> Markup | None:
    """LiDAR shares in the first and the last record."""
    records = {
        f'{record["phase"]}, iteration {record["iteration"]}': record['lidar_share']
        for record in (routing[:1] + routing[-1:])
    }
    return Markup(draw_heads(records)) if records else None


def _robustness_plot(robustness: dict) -> Markup:
    models = {
        model: {failure: scores['nds'] for failure, scores in results['failures'].items()}
        for model, results in robustness['models'].items()
    }
    return Markup(draw_robustness(models))


def _embed(path: Path) -> str:
    """A picture as a data URI, at most :data:`WIDTH` pixels wide."""
    picture = cv2.imread(str(path))
    scale = min(1.0, WIDTH / picture.shape[1])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    return f'data:image/jpeg;base64,{base64.b64encode(data).decode()}'


def _number(value: float | None, digits: int = 3) -> str:
    """A score; a dash for one that is not defined, such as the orientation of a cone."""
    return '–' if value is None or value != value else f'{value:.{digits}f}'


def _change(difference: Mapping) -> str:
    """A difference in points with its interval."""
    value, low, high = (100 * x for x in (difference['value'], *difference['interval']))
    return f'{value:+.1f} [{low:+.1f}, {high:+.1f}]'


def _rates(span: Sequence[float] | None) -> str:
    """Learning rates of a module: one, or the lowest and the highest."""
    if span is None:
        return '–'
    low, high = (f'{rate:.2g}' for rate in span)
    return low if low == high else f'{low} to {high}'
