"""Check of data-parallel training in two processes against one process."""

import tempfile
import time
from pathlib import Path

import torch
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..process_group import leave_process_group
from .decoder import RoutedDecoder
from .decoder_inputs import NUM_CAMERAS, SMALL, random_windows
from .result import Comparison, Result, norm_error, rounding

BATCH, QUERIES, CHANNELS = 2, 20, 32
SECONDS = 240
CPU = torch.device('cpu')


def check_processes(device: torch.device) -> Result:
    """Check gradients averaged over two processes with a batch each.

    With two GPUs the processes use NCCL, otherwise gloo on the CPU.
    """
    backend = 'nccl' if device.type == 'cuda' and torch.cuda.device_count() > 1 else 'gloo'
    first, second = (gradients(_model(), _batch(rank, CPU)) for rank in range(2))
    with tempfile.TemporaryDirectory() as folder:
        context = mp.spawn(_work, args=(folder, backend), nprocs=2, join=False)
        fault = _wait(context)
        if fault is not None:
            return Result(what=f'2 processes, {backend}', faults=[fault])
        found = [torch.load(Path(folder, f'{rank}.pth')) for rank in range(2)]
    # Sums in another order through a few layers make some tens of roundings.
    most = 512 * rounding(torch.float32)
    comparisons = [
        Comparison(
            f'{name} of process {rank}', norm_error(grads[name], (grad + second[name]) / 2), most
        )
        for rank, grads in enumerate(found)
        for name, grad in first.items()
    ]
    return Result(
        what=f'2 processes, {backend}, gradients of decoder and router', comparisons=comparisons
    )


def gradients(model: nn.Module, batch: list) -> dict[str, Tensor]:
    """Gradients of all parameters by name, on the CPU."""
    *inputs, target, windows = batch
    (model(*inputs, windows) - target).square().mean().backward()
    return {
        name.removeprefix('module.'): parameter.grad.cpu()
        for name, parameter in model.named_parameters()
    }


def _model() -> RoutedDecoder:
    torch.manual_seed(0)
    return RoutedDecoder(SMALL.layout, channels=CHANNELS, num_heads=4, scope='global')


def _batch(rank: int, device: torch.device) -> list:
    """Queries, tokens, positions, target and windows of a process."""
    torch.manual_seed(1 + rank)
    sizes = (QUERIES, SMALL.num_tokens, SMALL.num_tokens)
    inputs = [torch.randn(BATCH, n, CHANNELS) for n in sizes]
    inputs.append(torch.randn(2, BATCH, QUERIES, CHANNELS))
    camera_mask = torch.ones(BATCH, NUM_CAMERAS, dtype=torch.bool)
    windows = random_windows(SMALL, device, num_queries=QUERIES, camera_mask=camera_mask)
    return [*(x.to(device) for x in inputs), windows]


def _work(rank: int, folder: str, backend: str) -> None:
    """Main function of each process; a spawned process imports it by name."""
    device = torch.device('cuda', rank) if backend == 'nccl' else CPU
    torch.set_num_threads(1)
    if backend == 'nccl':
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(
        backend, init_method=f'file://{folder}/meeting', rank=rank, world_size=2
    )
    model = DistributedDataParallel(_model().to(device))
    torch.save(gradients(model, _batch(rank, device)), Path(folder, f'{rank}.pth'))
    torch.distributed.barrier()
    del model
    leave_process_group()


def _wait(context: mp.ProcessContext) -> str | None:
    """Wait for the processes; returns the fault if they fail or do not end in time."""
    end = time.monotonic() + SECONDS
    try:
        while not context.join(timeout=1):
            if time.monotonic() > end:
                for process in context.processes:
                    process.kill()
                return f'the processes did not end within {SECONDS} s'
    except mp.ProcessRaisedException as error:
        return str(error).strip().splitlines()[-1]
    except mp.ProcessExitedException as error:
        return str(error)
    return None
