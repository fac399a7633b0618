"""Make a small synthetic database in nuScenes' format.

Example:
    python tools/make_synthetic_nuscenes.py
    python tools/make_synthetic_nuscenes.py --out data/synthetic_trainval --version v1.0-trainval \
        --train-scenes 240 --val-scenes 30 --keyframes 10 --sweeps 1 --seed 1
"""

import argparse
import os
import signal
import sys

import _startup

_startup.prepare()

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.data_preparation.synthetic import DatabaseSettings, make_database


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    defaults = DatabaseSettings()
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', default='data/synthetic_nuscenes', help='data root to make')
    parser.add_argument(
        '--version', default=defaults.version, help='v1.0-mini (default) or v1.0-trainval'
    )
    parser.add_argument('--train-scenes', type=int, help='default: all of the official split')
    parser.add_argument('--val-scenes', type=int, help='default: all of the official split')
    parser.add_argument(
        '--keyframes',
        type=int,
        default=defaults.keyframes,
        help='samples per scene, two per second',
    )
    parser.add_argument(
        '--sweeps', type=int, default=defaults.sweeps, help='LiDAR sweeps between keyframes'
    )
    parser.add_argument('--seed', type=int, default=defaults.seed)
    parser.add_argument(
        '--image-size',
        type=int,
        nargs=2,
        metavar=('WIDTH', 'HEIGHT'),
        default=defaults.image_size,
        help='pixels',
    )
    parser.add_argument(
        '--draw-distance',
        type=float,
        default=defaults.draw_distance,
        help='maximum distance of objects from the ego vehicle, metres',
    )
    parser.add_argument(
        '--ignored-objects',
        type=int,
        default=defaults.ignored_objects,
        help='objects per scene of classes that are annotated but not scored, such as animals',
    )
    parser.add_argument('--world', default=defaults.world, help='plain (default) or streets')
    parser.add_argument('--workers', type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument(
        '--overwrite', action='store_true', help='replace a database made by this tool'
    )
    entry.add_screen_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Make the database and print its name."""
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with entry.as_usage_error(ValueError, OSError):
        settings = DatabaseSettings(
            version=args.version,
            train_scenes=args.train_scenes,
            val_scenes=args.val_scenes,
            keyframes=args.keyframes,
            sweeps=args.sweeps,
            seed=args.seed,
            image_size=tuple(args.image_size),
            draw_distance=args.draw_distance,
            ignored_objects=args.ignored_objects,
            world=args.world,
        )
        out = make_database(args.out, settings, workers=args.workers, overwrite=args.overwrite)
    print(f'made {out}')


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='nothing was left behind')
