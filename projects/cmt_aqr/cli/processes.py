"""Start of a process that computes, alone or as one of several."""

import os
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..denormals import flush_denormals
from ..usage_error import UsageError
from .screen import is_quiet
from .screen_hook import ScreenHook

_VARIABLES = dict(
    none=(),
    pytorch=('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    mpi=('OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE'),
)
_LAUNCHERS = dict(pytorch='tools/dist_train.sh or torchrun', slurm='srun', mpi='mpirun')


def check_launcher(launcher: str) -> None:
    """Check that a launcher has set its environment variables.

    Raises:
        UsageError: it has not, or the working directory cannot be written.
    """
    missing = [name for name in _VARIABLES[launcher] if name not in os.environ]
    if missing:
        raise UsageError(
            f'--launcher {launcher}: {", ".join(missing)} not set in the environment; start '
            f'several processes by {_LAUNCHERS[launcher]}, or leave out --launcher'
        )
    if number_of_processes(launcher) > 1 and not os.access('.', os.W_OK):
        raise UsageError(
            f'{os.getcwd()} cannot be written, and several processes collect the results of a test '
            'in the folder in which they start: start them in another one'
        )


def number_of_processes(launcher: str) -> int:
    """Number of processes that a launcher has started."""
    size = dict(pytorch='WORLD_SIZE', slurm='SLURM_NTASKS', mpi='OMPI_COMM_WORLD_SIZE')
    return int(os.environ[size[launcher]]) if launcher in size else 1


def is_first_process() -> bool:
    """Whether this process is alone or the first of several, which need not be connected yet."""
    ranks = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
    return not any(int(os.environ.get(name, 0)) for name in ranks)


def start_process(local_rank: int) -> None:
    """Set up the CPU and the environment of this process, before anything is computed.

    Args:
        local_rank: place among the processes of this machine, if the launcher has not set the
            variable ``LOCAL_RANK``.
    """
    flush_denormals()
    os.environ.setdefault('LOCAL_RANK', str(local_rank))


def build_runner(cfg: Config) -> Runner:
    """The Runner of a config, of the class that ``runner_type`` names if it is given.

    If the log is kept off the screen, a hook shows progress and scores.
    """
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    if is_quiet():
        runner.register_hook(ScreenHook())
        if is_main_process():
            weights = f', weights {cfg.load_from}' if cfg.get('load_from') else ''
            print(f'{cfg.filename}{weights}; log: {runner.logger.log_file}', flush=True)
    return runner


def start_cpu_processes(cfg: Config) -> None:
    """Let processes started by torchrun train together on a machine without a GPU.

    mmengine assigns a CUDA device to every process unless the process group exists before the
    Runner is built.

    Args:
        cfg: changed in place.
    """
    if cfg.launcher != 'pytorch' or torch.cuda.is_available():
        return
    if not torch.distributed.is_initialized():  # by an earlier model of this process
        seconds = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        timeout = None if seconds is None else timedelta(seconds=seconds)
        torch.distributed.init_process_group('gloo', timeout=timeout)
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
