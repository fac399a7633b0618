"""Speed of the data pipelines of a config: samples a second of one worker, by step.

Beside this project's loaders, those of MMDetection3D read the same files in the same pipeline, with
float32 images as in all its configs, and without pasted objects, since it pastes none into images.
No sample loses a sensor.

All samples are of one keyframe. Its cloud also stands for its sweeps, and two thirds of its objects
are removed from the annotations, to be pasted.
"""

import argparse
import copy
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import cv2
import mmcv
import numpy as np
from mmdet3d.datasets.transforms import loading as mmdet3d_loading
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.fileio import dump, load
from mmengine.registry import init_default_scope

from projects.cmt_aqr.data_preparation.object_database import collect_objects
from projects.cmt_aqr.datasets.infos import read_infos
from projects.cmt_aqr.datasets.transforms import loading as own_loading
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.markdown import duration, table

from . import workload
from .processes import Measured, measure
from .report import Report, gigabytes, procedure
from .timing import Stopwatch, Times, summarize, work
from .workload import INFO_FILE

OURS, MMDET3D = 'this project', 'MMDetection3D'
NUM_SWEEPS = 10
SWEEP_SECONDS = 0.05
# Steps of a pipeline by their name in the table; all others are its scene augmentation.
STEPS = {
    'LoadPointsOfKeyframe': 'keyframe',
    'LoadPointsFromFile': 'keyframe',
    'LoadPointsOfSweeps': 'sweeps',
    'LoadPointsFromMultiSweeps': 'sweeps',
    'LoadMultiViewImages': 'images',
    'LoadMultiViewImageFromFiles': 'images',
    'JointObjectSample': 'pasting',
    'ResizeCropFlipImage': 'image augmentation',
    'Pack3DDetInputs': 'packing',
}
_SENSOR_DRAWS = ('DrawIndex', 'RandomFailure')


class NestedStopwatch(Stopwatch):
    """Stopwatch whose laps do not count the time of laps inside them."""

    def reset(self) -> None:
        """Delete all laps."""
        super().reset()
        self._open: list[str] = []

    @contextmanager
    def lap(self, name: str) -> Iterator[None]:
        """Time the block; laps of the same name add up."""
        before = self.laps.get(name, 0.0), self.cpu_laps.get(name, 0.0)
        self._open.append(name)
        with super().lap(name):
            yield
        self._open.pop()
        if self._open:
            for laps, start in zip((self.laps, self.cpu_laps), before, strict=True):
                outer = self._open[-1]
                laps[outer] = laps.get(outer, 0.0) - (laps[name] - start)


class PipelineSide:
    """Loads batches as a worker of a DataLoader does, in one thread.

    Args:
        config: path of a config.
        options: settings to change in it.
        root: data root, made by :func:`make_root`.
        split: 'train' or 'test'.
        loaders: :data:`OURS` or :data:`MMDET3D`.
        paste: whether objects are pasted.
    """

    def __init__(
        self,
        config: str,
        options: Mapping,
        root: str,
        *,
        device: object,
        split: str,
        loaders: str,
        paste: bool,
    ) -> None:
        cv2.setNumThreads(0)
        cfg = workload.Workload(config, options).read()
        init_default_scope('mmdet3d')
        self.watch = NestedStopwatch(device)
        self._time_calls()
        loader = cfg[f'{split}_dataloader']
        self.batch_size = loader.batch_size
        self.dataset = build_dataset(cfg, root, split=split, loaders=loaders, paste=paste)
        self.facts = {'batch_size': self.batch_size}
        self._seed = 0

    def _time_calls(self) -> None:
        for module, name, lap in (
            (mmdet3d_loading, 'get', 'files'),
            (own_loading, 'get', 'files'),
            (mmcv, 'imfrombytes', 'JPEG'),
        ):
            setattr(module, name, self._timed(lap, getattr(module, name)))

    def _timed(self, lap: str, function: Callable) -> Callable:
        def timed(*args, **kwargs):
            with self.watch.lap(lap):
                return function(*args, **kwargs)

        return timed

    def __call__(self) -> Times:
        """Seconds a sample of each step, and of all."""
        self.watch.reset()
        np.random.seed(self._seed)
        self._seed += 1
        samples = [self._load() for _ in range(self.batch_size)]
        with self.watch.lap('collation'):
            batch = pseudo_collate(samples)
        with self.watch.lap('copy'):  # tensors into memory that the main process shares
            ForkingPickler.dumps(batch)
        times = self.watch.times(lambda laps: {**laps, 'sample': sum(laps.values())})
        return {name: seconds / self.batch_size for name, seconds in times.items()}

    def _load(self) -> dict:
        with self.watch.lap('annotations'):
            results = self.dataset.get_data_info(0)
            for name in ('box_type_3d', 'box_mode_3d'):
                results[name] = getattr(self.dataset, name)
        for step in self.dataset.pipeline.transforms:
            with self.watch.lap(STEPS.get(type(step).__name__, 'scene augmentation')):
                results = step(results)
        return results


def build_dataset(cfg: Config, root: str, *, split: str, loaders: str, paste: bool):
    """The dataset of a split on the data root of :func:`make_root`, with the chosen loaders."""
    settings = workload.innermost(cfg[f'{split}_dataloader'].dataset)
    skipped = _SENSOR_DRAWS if paste else (*_SENSOR_DRAWS, 'JointObjectSample')
    pipeline = []
    for step in settings.pipeline:
        if step.type in skipped:
            continue
        step = copy.deepcopy(step)
        if step.type == 'JointObjectSample':
            step.db_sampler.database = f'{root}/objects'
        pipeline.append(_plain_loader(step) if loaders == MMDET3D else step)
    return DATASETS.build(dict(settings, data_root=root, ann_file=INFO_FILE, pipeline=pipeline))


def _plain_loader(step: Mapping) -> Mapping:
    """MMDetection3D's loader in place of one of this project; images as in all its configs."""
    if step.type == 'LoadMultiViewImages':
        return dict(type='LoadMultiViewImageFromFiles', to_float32=True)
    if step.type == 'LoadPointsOfKeyframe':
        return dict(step, type='LoadPointsFromFile')
    if step.type == 'LoadPointsOfSweeps':
        return dict(step, type='LoadPointsFromMultiSweeps', load_dim=5)
    return step


def make_root(frame: Path, root: Path) -> None:
    """Makes a data root of one sample with ten sweeps, and a database of its other objects.

    Args:
        frame: data root of one keyframe.
        root: existing folder.
    """
    for name in ('samples', 'sweeps'):
        shutil.copytree(frame / name, root / name)  # follows links
    infos = read_infos(frame / INFO_FILE)
    (sample,) = infos.entries
    cloud = sample['lidar_points']['lidar_path']
    sample['lidar_sweeps'] = [
        {
            'timestamp': sample['timestamp'] - SWEEP_SECONDS * number,
            'lidar_points': {'lidar_path': f'{number}_{cloud}', 'lidar2sensor': np.eye(4)},
        }
        for number in range(1, NUM_SWEEPS + 1)
    ]
    for sweep in sample['lidar_sweeps']:
        name = sweep['lidar_points']['lidar_path']
        shutil.copy(root / 'samples/LIDAR_TOP' / cloud, root / 'sweeps/LIDAR_TOP' / name)
    folders = {path.name: str(path) for path in (root / 'samples').iterdir()}
    prefix = {**folders, 'pts': folders['LIDAR_TOP'], 'sweeps': str(root / 'sweeps/LIDAR_TOP')}
    collect_objects(root, root / 'objects', infos, data_prefix=prefix)
    content = load(frame / INFO_FILE)
    content['data_list'] = [dict(sample, instances=sample['instances'][::3])]
    with replacing(root / INFO_FILE) as temporary:
        dump(content, temporary)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument('config', type=Path, help='config with the pipelines')
    workload.add_arguments(parser)
    parser.add_argument(
        '--rate', type=float, default=10.0, help='samples a second that a GPU takes'
    )


def run(args: argparse.Namespace) -> Report:
    """Measure the training and test pipelines with both kinds of loaders.

    Raises:
        UsageError: the config or the keyframe does not exist.
    """
    frame = workload.check([args.config], argparse.Namespace(**{**vars(args), 'synthetic': False}))
    with tempfile.TemporaryDirectory() as root:
        make_root(Path(frame), Path(root))
        make = partial(PipelineSide, str(args.config), args.cfg_options, root, device=args.device)
        makers = {
            'train': partial(make, split='train', loaders=OURS, paste=True),
            'train, no pasting': partial(make, split='train', loaders=OURS, paste=False),
            f'train, {MMDET3D}': partial(make, split='train', loaders=MMDET3D, paste=False),
            'test': partial(make, split='test', loaders=OURS, paste=False),
            f'test, {MMDET3D}': partial(make, split='test', loaders=MMDET3D, paste=False),
        }
        one_thread = argparse.Namespace(**{**vars(args), 'threads': 1})
        measured = measure(makers, one_thread)
    runs = {name: side.runs for name, side in measured.items()}
    return Report(markdown=_markdown(measured, args), data={'runs': runs})


def _markdown(measured: Mapping[str, Measured], args: argparse.Namespace) -> str:
    return '\n\n'.join(
        [
            f'Data pipelines of `{args.config}` on the sample of {args.frame} with {NUM_SWEEPS} '
            f'sweeps, in processor time of one thread. {procedure(args)} Memory is the peak above '
            'that of the imported packages, with one batch.',
            _table(measured, args.rate),
        ]
    )


def _table(measured: Mapping[str, Measured], rate: float) -> str:
    sides = {name: work(summarize(side.runs)) for name, side in measured.items()}
    steps = list(dict.fromkeys(step for seconds in sides.values() for step in seconds))
    steps = [step for step in steps if step != 'sample']
    rows: list[Sequence[str]] = [
        (step, *(_time(seconds, step) for seconds in sides.values())) for step in steps
    ]
    rows.append(('**sample**', *(_time(seconds, 'sample') for seconds in sides.values())))
    per_second = [1 / seconds['sample'].median for seconds in sides.values()]
    rows.append(('samples a second', *(f'{number:.1f}' for number in per_second)))
    workers = (f'{np.ceil(rate / number):.0f}' for number in per_second)
    rows.append((f'workers for {rate:g} a second', *workers))
    memory = (gigabytes(side.peak_memory) for side in measured.values())
    rows.append(('memory of a worker', *memory))
    return table(('', *sides), rows)


def _time(seconds: Mapping, step: str) -> str:
    return duration(seconds[step].median) if step in seconds else ''
