"""Write mmdet3d's info files for a nuScenes-format database.

Example:
    python tools/create_data.py data/synthetic_nuscenes
    python tools/create_data.py data/nuscenes --version v1.0-trainval
"""

import argparse
import sys

from projects.cmt_aqr.datasets.info_files import INFO_SPLITS, create_info_files


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', help='data root of the database')
    parser.add_argument('--version', default='v1.0-mini', choices=list(INFO_SPLITS))
    parser.add_argument('--extra-tag', default='nuscenes', help='start of the file names')
    parser.add_argument('--max-sweeps', type=int, default=10, help='past LiDAR sweeps listed')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    try:
        files = create_info_files(
            args.root, version=args.version, prefix=args.extra_tag, max_sweeps=args.max_sweeps
        )
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print('made ' + ' and '.join(map(str, files)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
