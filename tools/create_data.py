"""Write mmdet3d's info files for a nuScenes-format database, or update one of an older format.

Example:
    python tools/create_data.py data/synthetic_nuscenes
    python tools/create_data.py data/nuscenes --version v1.0-trainval --with-database
    python tools/create_data.py data/nuscenes --update-infos old/nuscenes_infos_train.pkl
"""

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.cmt_aqr.datasets.info_files import INFO_SPLITS, create_info_files, update_info_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', help='data root of the database')
    parser.add_argument('--version', default='v1.0-mini', help=f'one of {", ".join(INFO_SPLITS)}')
    parser.add_argument('--extra-tag', default='nuscenes', help='start of the file names')
    parser.add_argument('--max-sweeps', type=int, default=10, help='past LiDAR sweeps listed')
    parser.add_argument(
        '--with-database',
        action='store_true',
        help="also write the training objects' points and image patches, for JointObjectSample",
    )
    parser.add_argument(
        '--update-infos',
        metavar='FILE',
        help='in place of all this, bring an info file of MMDetection3D before 1.1 to the format '
        'of today; it goes into the data root',
    )
    return parser.parse_args()


def create(args: argparse.Namespace) -> list[Path]:
    """What the arguments ask for."""
    if args.update_infos:
        return [update_info_file(args.root, args.update_infos)]
    return create_info_files(
        args.root,
        version=args.version,
        prefix=args.extra_tag,
        max_sweeps=args.max_sweeps,
        with_database=args.with_database,
    )


def main() -> int:
    args = parse_args()
    # A polite kill cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        made = create(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\ninterrupted: the data root is as it was', file=sys.stderr)
        return 130
    print('\n'.join(f'made {path}' for path in made))
    return 0


if __name__ == '__main__':
    sys.exit(main())
