"""Start of a process that computes, alone or as one of several."""

import os

import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..denormals import flush_denormals


def start_process(local_rank: int) -> None:
    """Set up the CPU and the environment of this process, before anything is computed.

    Args:
        local_rank: place among the processes of this machine, if the launcher has not set the
            variable ``LOCAL_RANK``.
    """
    flush_denormals()
    os.environ.setdefault('LOCAL_RANK', str(local_rank))


def build_runner(cfg: Config) -> Runner:
    """The Runner of a config, of the class that ``runner_type`` names if it is given."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


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
        torch.distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    cfg.model_wrapper_cfg = dict(wrapper, device_ids=None)
