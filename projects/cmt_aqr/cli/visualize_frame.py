"""A keyframe of a nuScenes-format database: its cameras and a view from above, with boxes.

Example:
    python tools/visualize.py frame data/synthetic_nuscenes --index 30
    python tools/visualize.py frame data/synthetic_nuscenes --token TOKEN \
        --predictions work_dirs/run/pred_instances_3d/results_nusc.json --out found.png
"""

import argparse
from pathlib import Path

from ..data_preparation.data_root import open_database
from ..usage_error import UsageError
from ..visualization import load_predictions, render_frame, save
from .entry import add_screen_arguments, as_usage_error, number, picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this picture."""
    add_screen_arguments(parser)
    parser.add_argument('dataroot', help='data root of the database')
    parser.add_argument('--version', help='such as v1.0-mini; default: the only one in the root')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--index', type=int, default=0, help='row in the sample table, from 0')
    which.add_argument('--token', help='token of a sample')
    parser.add_argument(
        '--out', type=picture, default=Path('frame.png'), help='image file (default: %(default)s)'
    )
    parser.add_argument(
        '--predictions', help='results_nusc.json, drawn as hits, misses and false alarms'
    )
    parser.add_argument(
        '--score-threshold',
        type=number(float, 0, 1),
        default=0.3,
        help='minimum score of a drawn prediction',
    )
    parser.add_argument(
        '--width', type=number(int, 200, 20000), default=1600, help='width of the image in pixels'
    )


def run(args: argparse.Namespace) -> list[Path]:
    """Draw the frame; return the file.

    Raises:
        UsageError: the database, the sample or the predictions do not exist or do not fit.
    """
    with as_usage_error(ValueError, OSError):
        nusc = open_database(args.dataroot, args.version)
        if args.token is None and not 0 <= args.index < len(nusc.sample):
            raise UsageError(f'--index must be 0 to {len(nusc.sample) - 1}, got {args.index}')
        figure = render_frame(
            nusc,
            args.token or nusc.sample[args.index]['token'],
            predictions=load_predictions(args.predictions) if args.predictions else None,
            score_threshold=args.score_threshold,
            width=args.width,
        )
    return [save(figure, args.out)]
