"""Hook that records the provenance of a run's results."""

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from mmdet3d.registry import HOOKS
from mmengine.config import Config
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from ..files import dump_json

_PACKAGES = ('cmt_aqr', 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmdet3d', 'nuscenes-devkit', 'numpy')
_REPO_ROOT = Path(__file__).resolve().parents[3]


@HOOKS.register_module()
class RunInfoHook(Hook):
    """Writes ``<work_dir>/<time>/run_info.json``, the provenance and scores of a run.

    It contains the command, config file, checkpoint, seed, git commit and whether the checkout
    differed from it, package versions, machine and number of processes, and one entry for every
    evaluation. It is in the folder of the run's log, so that a test does not overwrite the file of
    a training in the same work directory. Checkpoints get the settings that ``--resume`` compares.
    """

    priority = 'VERY_LOW'

    @master_only
    def before_run(self, runner: Runner) -> None:
        """Collect and write everything known before the first step."""
        self._info = {
            'command': shlex.join(sys.argv),
            'config': runner.cfg.filename,
            'load_from': runner._load_from,
            'resume': runner._resume,
            'seed': runner.seed,
            'deterministic': runner.deterministic,
            **code_version(),
            'versions': _versions(),
            'machine': _machine(),
            'processes': get_world_size(),
            'scores': [],
        }
        self._write(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store what ``--resume`` compares."""
        checkpoint['meta']['schedule'] = schedule_of(runner.cfg, get_world_size())
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            checkpoint['meta']['steps_per_epoch'] = len(runner.train_dataloader)

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the scores of a validation."""
        self._add_scores(runner, 'val', metrics)

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the scores of a test."""
        self._add_scores(runner, 'test', metrics)

    def _add_scores(self, runner: Runner, phase: str, metrics: dict[str, float] | None) -> None:
        scores = {name: float(value) for name, value in (metrics or {}).items()}
        # In a test, runner.iter would build the training data.
        iteration = 0 if phase == 'test' else runner.iter
        self._info['scores'].append({'phase': phase, 'iteration': iteration, **scores})
        self._write(runner)

    def _write(self, runner: Runner) -> None:
        dump_json(Path(runner.log_dir) / 'run_info.json', self._info)


def schedule_of(cfg: Config, processes: int) -> dict[str, int | str]:
    """Settings that determine the learning rates and the precision of a run, by name.

    Args:
        cfg: config of the run.
        processes: number of processes that train together.
    """
    schedule = {}
    if cfg.get('param_scheduler'):
        loop = cfg.get('train_cfg') or {}
        schedule = {name: loop[name] for name in ('max_epochs', 'max_iters') if name in loop}
    if 'batch_size' in (cfg.get('train_dataloader') or {}):
        schedule['batch_size x processes'] = cfg.train_dataloader.batch_size * processes
    wrapper = cfg.get('optim_wrapper') or {}
    schedule['accumulative_counts'] = wrapper.get('accumulative_counts', 1)
    precisions = dict(
        AmpOptimWrapper=wrapper.get('dtype') or 'float16', BFloat16OptimWrapper='bfloat16'
    )
    schedule['precision'] = precisions.get(wrapper.get('type'), 'float32')
    return schedule


def code_version() -> dict:
    """Commit of the checkout, and whether tracked files differ from it; ``None`` outside of git.

    An installed package may be inside the checkout of another project, whose commit is irrelevant.
    """

    def git(*arguments: str) -> str | None:
        try:
            answer = subprocess.run(
                ['git', '-C', str(_REPO_ROOT), *arguments], capture_output=True, text=True
            )
        except FileNotFoundError:
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    if git('rev-parse', '--show-toplevel') != str(_REPO_ROOT):
        return {'commit': None, 'changed': None}
    changes = git('status', '--porcelain', '--untracked-files=no')
    return {
        'commit': git('rev-parse', 'HEAD'),
        'changed': None if changes is None else bool(changes),
    }


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {'python': platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _machine() -> dict:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {'platform': platform.platform(), 'threads': torch.get_num_threads(), 'gpus': gpus}
