"""Reported health of each sensor over the inputs of one frame, whole and under sensor failures.

Example:
    python tools/visualize.py health CONFIG CHECKPOINT --failures limited_fov_2 knocked_camera_3
"""

import argparse
import copy
from pathlib import Path

from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..apis.models import build_model
from ..usage_error import UsageError
from ..visualization import save
from ..visualization.chosen_sample import add_sample_arguments, find_sample
from ..visualization.health import HealthView, render_health, view_health
from . import arguments
from .config_changes import add_failure, find_failure
from .entry import number, picture
from .visualize_router import CLEAN


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this picture."""
    arguments.add_config_arguments(parser)
    parser.add_argument('checkpoint', help='file or URL of the weights')
    add_sample_arguments(parser)
    parser.add_argument(
        '--failures',
        nargs='+',
        metavar='NAME[_SEVERITY]',
        default=['limited_fov_2', 'knocked_camera_3'],
        help='sensor failures, a column for each (default: %(default)s)',
    )
    parser.add_argument(
        '--out', type=picture, default=Path('health.png'), help='image file (default: %(default)s)'
    )
    parser.add_argument(
        '--score-threshold',
        type=number(float, 0, 1),
        default=0.3,
        help='minimum score of a drawn box',
    )


def run(args: argparse.Namespace) -> list[Path]:
    """Run the model on the frame under each condition and draw; return the file.

    Raises:
        UsageError: the config has no health monitor, a file, failure or the sample does not exist,
            or the checkpoint does not fit the model.
    """
    cfg = arguments.read_config(args, cached=[])
    if not cfg.get('model', {}).get('health_monitor'):
        raise UsageError(
            f'config {args.config} has no health monitor (model.health_monitor), so no health to '
            'draw; see docs/health.md'
        )
    arguments.check_checkpoint(args.checkpoint)
    arguments.check_data(cfg, 'test_dataloader')
    failures = {name: find_failure(cfg, name) for name in args.failures}
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        model = build_model(cfg, args.checkpoint)
        views = {CLEAN: _view(model, cfg, args)}
        for name, failure in failures.items():
            damaged = copy.deepcopy(cfg)
            add_failure(damaged, failure)
            views[name.replace('_', ' ')] = _view(model, damaged, args)
    return [save(render_health(views), args.out)]


def _view(model, cfg: Config, args: argparse.Namespace) -> HealthView:
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    index = find_sample(dataset, args)
    return view_health(
        model,
        dataset[index],
        cameras=list(dataset.get_data_info(index)['images']),
        classes=dataset.metainfo['classes'],
        score_threshold=args.score_threshold,
    )
