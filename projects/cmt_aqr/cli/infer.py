"""The command of tools/infer.py: detections of a frame or a scene as JSON and as pictures."""

import argparse
import errno
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from ..apis.detection import (
    COORDINATES,
    UNITS,
    Detection,
    box_as_dict,
    describe_damage,
    detect,
)
from ..apis.frames import load_frames
from ..apis.models import init_detector, shipped_models
from ..datasets.failures.suite import protocol
from ..evaluation.conditions import choose_rows
from ..files import dump_json
from ..progress import Progress
from ..usage_error import UsageError
from ..visualization.drawing import save
from ..visualization.frame import render_views
from ..visualization.movie import pixels, save_movie
from ..visualization.scene_boxes import AGAINST_SOUND, AGAINST_TRUTH, Kind, SceneBox, compare
from . import arguments, entry

SOUND = 'sound'
# Width in pixels of a movie of one condition.
MOVIE_WIDTH = 1200


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = entry.Parser(description='Detect objects in a frame or a scene')
    entry.add_screen_arguments(parser)
    parser.add_argument(
        'model', help=f'config file, or the name of a shipped model: {", ".join(shipped_models())}'
    )
    parser.add_argument(
        'frame',
        help='folder with images, a cloud and calibration.json, or info file (.pkl), or a folder '
        'with one',
    )
    parser.add_argument('--checkpoint', help='weights (default: those of the shipped model)')
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--index', type=int, default=0, help='index in the info file, from 0')
    which.add_argument('--scene', help='name of a scene of the info file: all its frames, a movie')
    parser.add_argument(
        '--failure',
        metavar='NAME_SEVERITY',
        help='also detect under a sensor failure, such as fog_2, and compare',
    )
    parser.add_argument(
        '--score-threshold',
        type=entry.number(float, 0, 1),
        default=0.3,
        help='lowest score (default: %(default)s)',
    )
    parser.add_argument(
        '--class-ranges',
        action='store_true',
        help="leave out boxes beyond the class ranges of nuScenes' evaluation",
    )
    parser.add_argument(
        '--no-ground-truth', action='store_true', help='ignore the annotations of an info file'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('work_dirs/infer'),
        help='folder of the results (default: %(default)s)',
    )
    parser.add_argument('--movie', choices=['gif', 'mp4'], default='gif', help='format of a scene')
    arguments.add_dtype_argument(parser)
    parser.add_argument(
        '--device', type=entry.device, help='such as cuda:1 or cpu (default: a GPU if there is one)'
    )
    return parser


def run(args: argparse.Namespace) -> list[Path]:
    """Detect, draw and write; return the files.

    Raises:
        UsageError: the model, its weights, the frames or the failure do not exist or do not fit.
    """
    if args.failure:
        _check_failure(args.failure)
    if args.out.is_file():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(args.out))
    settings = arguments.inference_settings(args)
    model = init_detector(args.model, args.checkpoint, device=args.device, **settings)
    frames = load_frames(args.frame, model.cfg, index=args.index, scene=args.scene)
    args.out.mkdir(parents=True, exist_ok=True)
    options = dict(score_threshold=args.score_threshold, class_ranges=args.class_ranges)
    conditions = [None, *([args.failure] if args.failure else [])]
    records, pictures = [], []
    progress = Progress('frames', len(frames))
    for frame in frames:
        found = [detect(model, frame, failure=name, **options) for name in conditions]
        records += [as_record(one, found[0]) for one in found]
        width = MOVIE_WIDTH * len(found) if args.scene else None
        figure = draw(found, args, width)
        # A figure takes several times the memory of its pixels.
        pictures.append(pixels(figure) if args.scene else figure)
        progress.move()
    progress.close()
    name = '_'.join(filter(None, (args.scene or frames[0].name, args.failure)))
    content = dict(model=args.model, coordinates=COORDINATES, units=UNITS, frames=records)
    dump_json(args.out / f'{name}.json', content)
    if args.scene:
        picture = save_movie(pictures, args.out / f'{name}.{args.movie}', fps=2)
    else:
        picture = save(pictures[0], args.out / f'{name}.png')
    return [args.out / f'{name}.json', picture]


def as_record(found: Detection, sound: Detection) -> dict:
    """Plain data of a detection, with its differences from that of the sound frame."""
    record = found.as_dict()
    if found.failure is None:
        return record
    compared = compare(sound.boxes, found.boxes, AGAINST_SOUND)
    differences = {
        kind.value: [box_as_dict(item) for item in compared if item.kind is kind]
        for kind in (Kind.GONE, Kind.NEW)
    }
    return dict(record, damage=describe_damage(sound.fed, found.fed), **differences)


def draw(found: Sequence[Detection], args: argparse.Namespace, width: int | None) -> Figure:
    """Picture of a frame: sound, and under a failure beside it."""
    sound = found[0]
    with_truth = sound.truth is not None and not args.no_ground_truth
    views = {}
    for one in found:
        boxes, note = one.boxes, ''
        if with_truth:
            boxes = compare(one.truth, one.boxes, AGAINST_TRUTH)
        if one.failure:
            changes = compare(sound.boxes, one.boxes, AGAINST_SOUND)
            note = f'{describe_damage(sound.fed, one.fed)};  {_count(changes)}'
            boxes = boxes if with_truth else changes
        heading = '' if len(found) == 1 else one.failure or SOUND
        views[heading] = one.fed._replace(boxes=boxes, note=note)
    names = (Path(args.model).stem, args.scene, f'frame {sound.frame}', args.failure)
    note = f'score ≥ {args.score_threshold:g}'
    return render_views(views, title='   '.join(filter(None, names)), note=note, width=width)


def _check_failure(name: str) -> None:
    """Raise a UsageError for an unknown failure, before a model is built."""
    try:
        choose_rows(protocol('all', ann_file=''), [name])
    except ValueError as error:
        raise UsageError(f'--failure {name}: {error}') from None


def _count(changes: Sequence[SceneBox]) -> str:
    """Numbers of boxes that a failure takes away and adds."""
    kinds = Counter(item.kind for item in changes)
    return f'boxes: {kinds[Kind.GONE]} gone, {kinds[Kind.NEW]} new'
