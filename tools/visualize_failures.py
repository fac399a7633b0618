"""Draw what sensor failures do to one frame: ``python tools/visualize_failures.py CONFIG``.

A contact sheet: the frame as it is, then a row for each failure with its severities from left to
right. Seeds are chosen so that the frame does fail, where one of the first hundreds does that.
"""

import os
import sys
from pathlib import Path

# Idle OpenMP threads must not spin: read by the runtime when torch is first imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import argparse

from matplotlib.figure import Figure
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from projects.cmt_aqr import entry
from projects.cmt_aqr.datasets.failures.suite import PROTOCOLS, protocol
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.visualization.chosen_sample import add_sample_arguments, find_sample
from projects.cmt_aqr.visualization.damaged_frame import load_damaged, loaders_of, telling_seed
from projects.cmt_aqr.visualization.failures import SHOWN, render_failures


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.make_parser('Draw what sensor failures do to one frame')
    add_sample_arguments(parser)
    parser.add_argument('--suite', choices=PROTOCOLS, default='all', help='which failures')
    parser.add_argument('--out', type=Path, default=Path('failures.png'), help='picture to write')
    return parser


def main() -> None:
    """Read the config, load the frame under each failure, and draw."""
    parser = make_parser()
    args = parser.parse_args()
    try:
        cfg = entry.read_config(args)
        entry.check_data(cfg, 'test_dataloader')
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
            figure = draw(cfg, args)
    except entry.UsageError as error:
        parser.exit(2, f'{parser.prog}: {error}\n')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as temporary:
        figure.savefig(temporary)
    print(f'made {args.out}')


def draw(cfg: Config, args: argparse.Namespace) -> Figure:
    """The sheet that the command line asks for.

    Raises:
        entry.UsageError: there is no such sample, or the pipeline cannot load it.
    """
    try:
        loaders = loaders_of(cfg.test_dataloader.dataset.pipeline)
    except ValueError as error:
        raise entry.UsageError(f'config {args.config}: {error}') from None
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, pipeline=[]))
    index = find_sample(dataset, args)
    info = dataset.get_data_info(index)

    def load(failure: dict | None = None):
        return load_damaged(
            dataset, index, loaders, point_cloud_range=cfg.point_cloud_range, failure=failure
        )

    rows = {'no failure': [load()]}
    for row in protocol(args.suite, ann_file=dataset.ann_file):
        failures = list(row.conditions.values())
        seed = telling_seed(info, failures, SHOWN)
        rows[row.name.replace('_', ' ')] = [load(dict(one, seed=seed)) for one in failures]
    return render_failures(
        rows, point_cloud_range=cfg.point_cloud_range, title=f'sample {info["token"]}'
    )


if __name__ == '__main__':
    main()
