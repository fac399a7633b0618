"""A contact sheet of sensor failures on one frame: a row for each failure, severities as columns.

The first row is the intact frame. The seeds are chosen so that each failure does occur in this
frame, if one of the first few hundred seeds makes it occur.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import DefaultScope

from ..datasets.failures.suite import PROTOCOLS, protocol
from ..grid import range_of
from ..usage_error import UsageError
from ..visualization import save
from ..visualization.chosen_sample import add_sample_arguments, find_sample
from ..visualization.damaged_frame import load_damaged, loaders_of, telling_seed
from ..visualization.failures import render_failures, shown_cameras
from . import arguments
from .entry import picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this picture."""
    arguments.add_config_arguments(parser)
    add_sample_arguments(parser)
    parser.add_argument('--suite', choices=PROTOCOLS, default='all', help='suite of failures')
    parser.add_argument(
        '--out',
        type=picture,
        default=Path('failures.png'),
        help='image file (default: %(default)s)',
    )


def run(args: argparse.Namespace) -> list[Path]:
    """Load the frame under each failure and draw the sheet; return the file.

    Raises:
        UsageError: the config, its data or the sample do not exist, or the test pipeline does not
            load both sensors with loaders that apply failures.
    """
    cfg = arguments.read_config(args, cached=[])
    arguments.check_data(cfg, 'test_dataloader')
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        return [save(draw(cfg, args), args.out)]


def draw(cfg: Config, args: argparse.Namespace) -> Figure:
    """The sheet that the command line asks for."""
    try:
        loaders = loaders_of(cfg.test_dataloader.dataset.pipeline)
    except ValueError as error:
        raise UsageError(f'config {args.config}: {error}') from None
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
    index = find_sample(dataset, args)
    info = dataset.get_data_info(index)
    limits, shown = range_of(cfg.model), shown_cameras(info['images'])

    def load(failure: dict | None = None):
        return load_damaged(dataset, index, loaders, point_cloud_range=limits, failure=failure)

    rows = {'no failure': [load()]}
    for row in protocol(args.suite, ann_file=dataset.ann_file):
        failures = list(row.conditions.values())
        try:
            seed = telling_seed(info, failures, shown)
        except ValueError as error:  # the data lack what the failure damages
            print_log(f'{error}', logger='current')
            continue
        rows[row.name.replace('_', ' ')] = [load(dict(one, seed=seed)) for one in failures]
    return render_failures(rows, point_cloud_range=limits, title=f'sample {info["token"]}')
