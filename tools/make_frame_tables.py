"""Make a nuScenes-format data root from the info file of one keyframe.

Example:
    python tools/make_frame_tables.py ../shared/nuscenes_frame --out data/real_frame
"""

import argparse
import sys

import _startup

_startup.prepare()

from projects.cmt_aqr.data_preparation.single_frame import make_frame_root


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'folder', help='folder with the info file, the six images and the LiDAR sweep'
    )
    parser.add_argument('--out', default='data/real_frame', help='data root to make')
    parser.add_argument('--copy', action='store_true', help='copy the files instead of linking')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        out = make_frame_root(args.folder, args.out, copy=args.copy)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'made {out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
