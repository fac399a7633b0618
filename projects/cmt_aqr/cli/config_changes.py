"""Changes that the options of a tool make to a config, each in place."""

from collections.abc import Iterator
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from ..evaluation.conditions import named_failure
from ..usage_error import UsageError
from .arguments import datasets_of

# Failures by the sensor that they take away.
DROPS = {'lidar': 'lidar_drop', 'camera': 'view_drop'}
# Failures of one sensor, by how the names of its loaders start.
_FAILURES_OF = {
    'LoadPoints': (
        'LidarDrop', 'BeamReduction', 'PointsDrop', 'LimitedFieldOfView', 'ObjectFailure',
        'GhostPoints',
    ),
    'LoadMultiViewImage': (
        'CameraDrop', 'RandomCameraLoss', 'Occlusion', 'Darkness', 'MotionBlur', 'Misalignment',
        'FrozenCamera', 'KnockedCamera',
    ),
}  # fmt: skip
# Loaders of mmdet3d, and the loaders of this project that also apply sensor failures.
_PLAIN_LOADERS = {
    'LoadPointsFromFile': 'LoadPointsOfKeyframe',
    'LoadPointsFromMultiSweeps': 'LoadPointsOfSweeps',
    'LoadMultiViewImageFromFiles': 'LoadMultiViewImages',
}


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
        ann_file = Path(dataset.get('data_root') or '', dataset.ann_file)
        return named_failure(name, ann_file=str(ann_file))
    except ValueError as error:
        raise UsageError(f'--failure {name}: {error}') from None


def add_failure(cfg: Config, failure: dict) -> None:
    """Puts a sensor failure before everything else in the test pipeline.

    Args:
        cfg: the config, changed in place.
        failure: config of a transform of :mod:`projects.cmt_aqr.datasets.failures`.

    Raises:
        UsageError: the test pipeline does not load the sensor that fails, or has loaders that
            apply no failure.
    """
    pipeline = cfg.test_dataloader.dataset.pipeline
    steps = [step.type for part in _lists_of_steps(pipeline) for step in part]
    for start, failures in _FAILURES_OF.items():
        if failure['type'] in failures and not any(step.startswith(start) for step in steps):
            raise UsageError(
                f'{failure["type"]}: the test pipeline of {cfg.filename} has no {start}…, whose '
                'data it damages'
            )
    unaffected = [step for step in steps if step in _PLAIN_LOADERS]
    if unaffected:
        remedies = ', '.join(f'{_PLAIN_LOADERS[name]} for {name}' for name in unaffected)
        raise UsageError(
            f'{failure["type"]}: the test pipeline of {cfg.filename} has loaders that apply no '
            f'failure; put in their place: {remedies}'
        )
    pipeline.insert(0, ConfigDict(failure))


def _lists_of_steps(pipeline: list[dict]) -> Iterator[list[dict]]:
    """A pipeline and the pipelines nested in its steps, such as that of `CachedFeatures`."""
    yield pipeline
    for step in pipeline:
        yield from _lists_of_steps(step.get('transforms', []))


def format_submission(cfg: Config, folder: str) -> None:
    """Make the test write a submission to nuScenes' test server, on the split without annotations.

    The file is ``<folder>/pred_instances_3d/results_nusc.json``. It declares the sensors of the
    dataset; by default MMDetection3D declares LiDAR only.

    Args:
        cfg: changed in place.
        folder: folder for the file.
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


def use_mixed_precision(cfg: Config) -> None:
    """Make a run train in mixed precision: float16 with a loss scale, or bfloat16 on a CPU.

    ``optim_wrapper.dtype`` of the config can choose bfloat16 on a GPU as well.

    Args:
        cfg: changed in place.

    Raises:
        UsageError: the config has another optimizer wrapper, or asks for float16 without a GPU.
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
