"""What ``tools/train.py`` and ``tools/test.py`` share: arguments, config, and faults found early.

Faults of the user's (a path that is not there, an option that does not apply) are found before
anything is built, and raised as ``UsageError`` with what is wrong and what to do.
"""

import argparse
import atexit
import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction

from .data_preparation.old_infos import is_old
from .denormals import flush_denormals as flush_denormals
from .evaluation.conditions import named_failure
from .feature_cache import use_feature_cache
from .old_settings import find_old_settings
from .usage_error import UsageError

_REPO_ROOT = Path(__file__).resolve().parents[2]
# Failures by the sensor that they take away.
DROPS = {'lidar': 'lidar_drop', 'camera': 'view_drop'}
_DATALOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')

# Failures that lose a whole sensor: how the names of its loaders start, and its name.
_LOST_SENSORS = {
    'LidarDrop': ('LoadPoints', 'lidar'),
    'CameraDrop': ('LoadMultiViewImage', 'camera'),
}
# Loaders of mmdet3d, and the loaders of this project that also apply sensor failures.
_PLAIN_LOADERS = {
    'LoadPointsFromFile': 'LoadPointsOfKeyframe',
    'LoadPointsFromMultiSweeps': 'LoadPointsOfSweeps',
    'LoadMultiViewImageFromFiles': 'LoadMultiViewImages',
}


def make_parser(description: str) -> argparse.ArgumentParser:
    """Parser with the arguments that training and testing share, named as in mmdet3d."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder for logs and checkpoints; else by the config')
    parser.add_argument('--seed', type=int, help='random seed; else by the config')
    parser.add_argument('--deterministic', action='store_true', help='deterministic algorithms')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings to change in the config, such as optim_wrapper.optimizer.lr=1e-4; a list is '
        'written key="[a,b]", without white space',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes it; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    return parser


def read_config(args: argparse.Namespace) -> Config:
    """Config file with the command line's changes; the work dir is named after it by default.

    Raises:
        UsageError: the file does not exist, has settings that mmengine would ignore, or a feature
            cache for what is not the same each time.
    """
    path = Path(args.config)
    if not path.is_file():
        raise UsageError(f'config {path} does not exist{_similar_config(path)}')
    cfg = Config.fromfile(path)
    cfg.launcher = args.launcher
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    old = find_old_settings(cfg.to_dict())
    if old:
        raise UsageError(f'config {path}: {"; ".join(old)}')
    if args.work_dir or not cfg.get('work_dir'):
        cfg.work_dir = args.work_dir or str(Path('work_dirs') / path.stem)
    if args.seed is not None:
        cfg.merge_from_dict({'randomness.seed': args.seed})
    if args.deterministic:
        cfg.merge_from_dict({'randomness.deterministic': True})
    try:
        use_feature_cache(cfg, {name: [*datasets_of(cfg, name)] for name in _DATALOADERS})
    except ValueError as error:
        raise UsageError(f'config {path}: {error}') from None
    return cfg


def _similar_config(path: Path) -> str:
    """Hint at the config of this checkout whose name is nearest to the one asked for."""
    known = {str(file.relative_to(_REPO_ROOT)) for file in _REPO_ROOT.glob('configs/*/*.py')}
    nearest = difflib.get_close_matches(str(path), known, n=1)
    return f'; did you mean {nearest[0]}?' if nearest else f' (in {Path.cwd()})'


def find_failure(cfg: Config, name: str) -> dict:
    """Config of a sensor failure by its name, for the test data of a config.

    Args:
        cfg: the config.
        name: ``lidar_drop``, ``view_drop``, ``fog_2``, ...; see
            :func:`~.evaluation.conditions.named_failure`.

    Raises:
        UsageError: there is no such failure.
    """
    dataset = cfg.test_dataloader.dataset
    try:
        return named_failure(name, ann_file=str(Path(dataset.data_root, dataset.ann_file)))
    except ValueError as error:
        raise UsageError(f'--failure {name}: {error}') from None


def add_failure(cfg: Config, failure: dict) -> None:
    """Puts a sensor failure before everything else in the test pipeline.

    Args:
        cfg: the config, changed in place.
        failure: config of a transform of :mod:`projects.cmt_aqr.datasets.failures`.

    Raises:
        UsageError: the test pipeline does not load the sensor that is lost, or has loaders that
            apply no failure.
    """
    pipeline = cfg.test_dataloader.dataset.pipeline
    steps = [step.type for part in _lists_of_steps(pipeline) for step in part]
    start, sensor = _LOST_SENSORS.get(failure['type'], ('', ''))
    if not any(step.startswith(start) for step in steps):
        raise UsageError(
            f'{failure["type"]}: the test pipeline of {cfg.filename} loads no {sensor} data'
        )
    unaffected = [step for step in steps if step in _PLAIN_LOADERS]
    if unaffected:
        remedies = ', '.join(f'{_PLAIN_LOADERS[name]} for {name}' for name in unaffected)
        raise UsageError(
            f'{failure["type"]}: the test pipeline of {cfg.filename} has loaders that apply no '
            f'failure; put in their place: {remedies}'
        )
    pipeline.insert(0, ConfigDict(failure))


def format_submission(cfg: Config, folder: str) -> None:
    """Let the test write what nuScenes' test server takes, of the split without annotations.

    The file is ``<folder>/pred_instances_3d/results_nusc.json``. MMDetection3D declares a model of
    LiDAR alone unless told otherwise; the sensors are those of the dataset.

    Args:
        cfg: changed in place.
        folder: for the file.
    """
    (dataset,) = datasets_of(cfg, 'test_dataloader')
    dataset.update(ann_file='nuscenes_infos_test.pkl', load_eval_anns=False)
    dataset.metainfo.version = 'v1.0-test'
    sensors = ('camera', 'lidar', 'radar', 'map', 'external')
    cfg.test_evaluator = dict(
        type='NuScenesMetric',
        data_root=dataset.data_root,
        ann_file=str(Path(dataset.data_root, dataset.ann_file)),
        modality={f'use_{name}': dataset.modality.get(f'use_{name}', False) for name in sensors},
        format_only=True,
        jsonfile_prefix=folder,
    )
    cfg.data_command = f'python tools/create_data.py {dataset.data_root} --version v1.0-test'


def _lists_of_steps(pipeline: list[dict]) -> Iterator[list[dict]]:
    """A pipeline and the pipelines nested in its steps, such as that of `CachedFeatures`."""
    yield pipeline
    for step in pipeline:
        yield from _lists_of_steps(step.get('transforms', []))


def check_data(cfg: Config, *dataloaders: str) -> None:
    """Look for the annotation file of every dataset in these dataloaders.

    A config says in ``data_command`` how to make its data.

    Raises:
        UsageError: a file does not exist, or has the format of MMDetection3D before 1.1.
    """
    for name in dataloaders:
        for dataset in datasets_of(cfg, name):
            path = Path(dataset.get('data_root') or '', dataset['ann_file'])
            if not path.is_file():
                command = cfg.get('data_command', 'see "data" in the README')
                raise UsageError(
                    f'{name} reads {path}, which does not exist in {Path.cwd()}; to make it: '
                    f'{command}'
                )
            if is_old(path):
                raise UsageError(
                    f'{name} reads {path}, which has the format of MMDetection3D before 1.1; to '
                    f'convert it: python tools/create_data.py {dataset.get("data_root")} '
                    f'--update-infos {path}'
                )


def datasets_of(cfg: Config, dataloader: str) -> Iterator[dict]:
    """The datasets with files of their own in a dataloader."""
    return _datasets((cfg.get(dataloader) or {}).get('dataset'))


def _datasets(dataset: dict | None) -> Iterator[dict]:
    """The datasets with files of their own inside wrappers such as CBGSDataset, and in lists."""
    if not isinstance(dataset, dict):
        return
    if 'ann_file' in dataset:
        yield dataset
    for inner in [dataset.get('dataset'), *(dataset.get('datasets') or [])]:
        yield from _datasets(inner)


def check_checkpoint(path: str) -> None:
    """Look for a checkpoint that is a local file; an address on the web is not tried.

    Raises:
        UsageError: it does not exist.
    """
    if '://' not in path and not Path(path).expanduser().is_file():
        raise UsageError(f'checkpoint {path} does not exist (in {Path.cwd()})')


def use_mixed_precision(cfg: Config) -> None:
    """Let a run train in mixed precision: float16 with a loss scale, on a CPU bfloat16.

    ``optim_wrapper.dtype`` of the config may ask for bfloat16 on a GPU too.

    Args:
        cfg: changed in place.

    Raises:
        UsageError: another optimizer wrapper, or float16 without a GPU.
    """
    wrapper = cfg.optim_wrapper
    kind = wrapper.get('type', 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise UsageError(f'--amp applies to optim_wrapper.type OptimWrapper, not {kind}')
    if torch.cuda.is_available():
        wrapper.type = 'AmpOptimWrapper'
        wrapper.setdefault('loss_scale', 'dynamic')
        return
    dtype = wrapper.pop('dtype', 'bfloat16')
    if dtype != 'bfloat16':
        raise UsageError(f'--amp in {dtype} needs a GPU; on a CPU it trains in bfloat16')
    wrapper.pop('loss_scale', None)
    wrapper.type = 'BFloat16OptimWrapper'


def start_cpu_processes(cfg: Config) -> None:
    """Let several processes started by torchrun work together where there is no GPU.

    mmengine gives every process a CUDA device, unless the process group exists before the Runner
    is built.
    """
    if cfg.launcher != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():  # by an earlier model of this process
        torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)


def set_local_rank(local_rank: int) -> None:
    """Set the variable mmengine reads, unless the launcher has set it."""
    os.environ.setdefault('LOCAL_RANK', str(local_rank))


def end_processes() -> None:
    """Leave the process group and end this process, where there is a group; for when all is done.

    DistributedDataParallel keeps its process group, so gloo's threads outlive
    ``destroy_process_group``. One that lets go of a tensor while the interpreter shuts down aborts
    the process ("terminate called without an active exception"), and torchrun then calls the
    finished run failed. So the process ends with status 0 and no shutdown of the interpreter:
    functions registered with ``atexit`` are called, and streams flushed, but nothing after this
    call is run.
    """
    if not torch.distributed.is_initialized():
        return
    torch.distributed.destroy_process_group()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
