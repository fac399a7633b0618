"""Make a nuScenes-format data root from the info file of one keyframe.

Example:
    python tools/make_frame_tables.py ../shared/nuscenes_frame --out data/real_frame
"""

import argparse

import _startup

_startup.prepare()

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.data_preparation.single_frame import make_frame_root


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', help='folder with the info file, the images and the LiDAR sweep')
    parser.add_argument('--out', default='data/real_frame', help='data root to make')
    parser.add_argument('--copy', action='store_true', help='copy the files instead of linking')
    entry.add_screen_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Make the data root and print its name."""
    with entry.as_usage_error(ValueError, OSError):
        out = make_frame_root(args.folder, args.out, copy=args.copy)
    print(f'made {out}')


if __name__ == '__main__':
    entry.run(main, make_parser())
