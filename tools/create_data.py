"""Write info files and object databases, convert an old info file, or check one of one's own.

Example:
    python tools/create_data.py data/synthetic_nuscenes
    python tools/create_data.py data/nuscenes --version v1.0-trainval --with-database --workers 16
    python tools/create_data.py /datasets/nuscenes --version v1.0-trainval --out data/nuscenes
    python tools/create_data.py data/nuscenes --version v1.0-trainval --with-ego-future
    python tools/create_data.py data/nuscenes --update-infos old/nuscenes_infos_train.pkl
    python tools/create_data.py data/yard --infos yard_train.pkl --with-database
"""

import argparse
import os
import signal
import sys
from pathlib import Path

import _startup

_startup.prepare()

from projects.cmt_aqr.cli import entry
from projects.cmt_aqr.data_preparation.check_infos import check_info_file
from projects.cmt_aqr.data_preparation.ego_futures import add_ego_futures
from projects.cmt_aqr.data_preparation.info_files import (
    INFO_SPLITS,
    collect_own_objects,
    create_info_files,
    create_object_database,
    info_files,
    update_info_file,
)


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = entry.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('root', help='data root of the database')
    parser.add_argument('--version', default='v1.0-mini', help=f'one of {", ".join(INFO_SPLITS)}')
    parser.add_argument('--extra-tag', default='nuscenes', help='prefix of the file names')
    parser.add_argument(
        '--max-sweeps',
        type=entry.number(int, 0),
        default=10,
        help='number of past LiDAR sweeps to list',
    )
    parser.add_argument(
        '--out',
        metavar='FOLDER',
        help='write to this folder and leave the data root untouched; with links to all other '
        'files it is a data root itself',
    )
    parser.add_argument(
        '--splits',
        metavar='FILE',
        help='JSON file with the names of the scenes of each split (default: splits.json beside '
        'the tables, or else the official splits)',
    )
    parser.add_argument(
        '--infos',
        metavar='FILE',
        help="check this info file of a dataset of one's own, see docs/own_data.md; with "
        '--with-database make the database of its objects',
    )
    parser.add_argument(
        '--with-ego-future',
        action='store_true',
        help="also add the ego vehicle's next waypoints to the info files, for planning",
    )
    parser.add_argument(
        '--no-camera-boxes',
        dest='camera_boxes',
        action='store_false',
        help='leave out boxes in each image, which take most of the time and which nothing in this '
        'project reads',
    )
    parser.add_argument(
        '--update-infos',
        metavar='FILE',
        help='only convert an info file of MMDetection3D before 1.1 to the current format and '
        'write it to the data root',
    )
    _add_database_arguments(parser)
    entry.add_screen_arguments(parser)
    return parser


def _add_database_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--with-database',
        action='store_true',
        help="also write the training objects' points and image patches, for JointObjectSample; "
        'existing info files are kept, and an interrupted database is completed',
    )
    parser.add_argument(
        '--lidar-only',
        action='store_true',
        help='make the database of objects without image patches; no images are needed',
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=min(2, os.cpu_count() or 1),
        help='processes for the database of objects',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace a database of objects that is complete or has other samples',
    )


def create(args: argparse.Namespace) -> list[Path]:
    """Write the files that the arguments ask for; return them.

    Raises:
        ValueError: of the command line or the data.
    """
    if Path(args.extra_tag).name != args.extra_tag:
        raise ValueError(f'--extra-tag {args.extra_tag} starts names of files and cannot have a /')
    if args.with_database and args.update_infos:
        raise ValueError('--with-database reads new info files: give it after --update-infos')
    if args.with_ego_future and (args.update_infos or args.infos):
        raise ValueError(
            '--with-ego-future reads the tables: leave out --infos and --update-infos, and give '
            '--version'
        )
    if args.update_infos:
        return [update_info_file(args.root, args.update_infos, out=args.out)]
    database = dict(
        lidar_only=args.lidar_only, workers=args.workers, overwrite=args.overwrite, out=args.out
    )
    if args.infos:
        check_info_file(args.root, args.infos)
        return collect_own_objects(args.root, args.infos, **database) if args.with_database else []
    options = dict(
        version=args.version,
        prefix=args.extra_tag,
        max_sweeps=args.max_sweeps,
        splits=args.splits,
        camera_boxes=args.camera_boxes,
    )
    if args.with_database:
        made = create_object_database(args.root, **options, **database)
    else:
        made = create_info_files(args.root, **options, out=args.out)
    if args.with_ego_future:
        root = args.out or args.root
        add_ego_futures(root, info_files(root, args.version, args.extra_tag), version=args.version)
    return made


def main(args: argparse.Namespace) -> None:
    """Write the files and print their names."""
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with entry.as_usage_error(ValueError, OSError):
        made = create(args)
    for path in made:
        print(f'made {path}')


if __name__ == '__main__':
    resume = 'no file is half written, and the same command goes on with the database'
    entry.run(main, make_parser(), resume=resume, shows_info=True)
