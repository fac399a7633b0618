"""Draw one keyframe of a nuScenes-format database: six cameras and a view from above, with boxes.

Example:
    python tools/visualize_frame.py data/synthetic_nuscenes --index 30
    python tools/visualize_frame.py data/synthetic_nuscenes --token TOKEN \
        --predictions work_dirs/run/pred_instances_3d/results_nusc.json --out found.png
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from projects.cmt_aqr.data_preparation.data_root import open_database
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.visualization import load_predictions, render_frame


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('dataroot', help='data root of the database')
    parser.add_argument('--version', help='such as v1.0-mini; default: the one that is there')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--index', type=int, default=0, help='place in the table of samples, from 0')
    which.add_argument('--token', help='token of a sample')
    parser.add_argument('--out', default='frame.png', help='picture to write')
    parser.add_argument('--predictions', help='results_nusc.json, drawn dashed')
    parser.add_argument(
        '--score-threshold', type=float, default=0.3, help='least score of a drawn prediction'
    )
    parser.add_argument('--width', type=int, default=1600, help='of the picture, in pixels')
    return parser.parse_args()


def draw(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    nusc = open_database(args.dataroot, args.version)
    if args.token is None and not 0 <= args.index < len(nusc.sample):
        raise ValueError(f'--index must be 0 to {len(nusc.sample) - 1}, got {args.index}')
    figure = render_frame(
        nusc,
        args.token or nusc.sample[args.index]['token'],
        predictions=load_predictions(args.predictions) if args.predictions else None,
        score_threshold=args.score_threshold,
        width=args.width,
    )
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.out) as temporary:
        figure.savefig(temporary)


def main() -> int:
    args = parse_args()
    try:
        draw(args)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(f'made {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
