"""Check of a training step of the shipped tiny CMT against recorded losses.

The sample is the same on all machines, and the step draws no random numbers: machines differ by
rounding only.
"""

import contextlib
import json
from pathlib import Path

import torch
from torch import nn

from ..files import dump_json
from .result import Comparison, Result, name_of

CONFIG = 'cmt/cmt_tiny_synthetic.py'
WEIGHTS = 'cmt_tiny_synthetic.pth'
RECORD = Path(__file__).with_name('training_record.json')


def check_training(device: torch.device, *, amp: bool) -> Result:
    """Check losses, gradients of each part, and in float32 the losses after the step.

    Mixed precision is bfloat16 on a CPU, and float16 with a loss scaler on a GPU.
    """
    record = json.loads(RECORD.read_text())
    half = torch.float16 if device.type == 'cuda' else torch.bfloat16
    found = take_step(device, half if amp else None)
    most = record['allowed']['mixed' if amp else 'float32']
    expected = {name: x for name, x in record['found'].items() if name in found}
    faults = [f'{name} was not recorded' for name in found if name not in expected]
    comparisons = [
        Comparison(
            name,
            abs(found[name] - value) / abs(value),
            most['gradient' if 'gradient' in name else 'loss'],
        )
        for name, value in expected.items()
    ]
    kind = f'mixed {name_of(half)}' if amp else 'float32'
    what = f'{kind}, tiny CMT, losses and gradients as recorded with torch {record["torch"]}'
    return Result(what=what, comparisons=comparisons, faults=faults)


def take_step(device: torch.device, dtype: torch.dtype | None) -> dict[str, float]:
    """One step of the tiny model, in mixed precision unless ``dtype`` is ``None``.

    Returns:
        losses by name; ``gradient of PART``, the norm of the gradient of each part; and without
        mixed precision, whose scaler may skip the first step, ``NAME after the step``.
    """
    from mmengine.optim import build_optim_wrapper

    cfg, model, batch = _build(device)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    # A small scale, since the first step often overflows at the default.
    scaler = torch.amp.GradScaler(device.type, init_scale=256.0, enabled=dtype == torch.float16)
    losses, total = _losses(model, batch, device, dtype)
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    found = {**losses, **_gradient_norms(model)}
    if dtype is None:
        optimizer.step()
        with torch.no_grad():
            after, _ = _losses(model, batch, device, dtype)
        found |= {f'{name} after the step': loss for name, loss in after.items()}
    return found


def _build(device: torch.device) -> tuple:
    """The config, the model with the shipped weights in training mode, and the sample."""
    from mmdet3d.registry import MODELS
    from mmengine.config import Config
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope
    from mmengine.runner import load_checkpoint

    from .. import paths
    from .random_sample import random_batch

    MMLogger.get_current_instance().setLevel('WARNING')  # only the table is printed
    cfg = Config.fromfile(paths.configs() / CONFIG)
    cfg.model.pts_bbox_head.denoising = None  # its noise comes from the device
    init_default_scope('mmdet3d')
    model = MODELS.build(cfg.model)
    weights = str(paths.weights() / WEIGHTS)
    load_checkpoint(model, weights, map_location='cpu', strict=True, logger='silent')
    return cfg, model.to(device).train(), random_batch(cfg)


def _losses(
    model: nn.Module, batch: dict, device: torch.device, dtype: torch.dtype | None
) -> tuple[dict[str, float], torch.Tensor]:
    """Losses by name, and their sum with its graph."""
    mixed = torch.autocast(device.type, dtype) if dtype else contextlib.nullcontext()
    with mixed:
        losses = model(**model.data_preprocessor(batch, True), mode='loss')
    losses = {name: loss for name, loss in losses.items() if 'loss' in name}
    return {name: loss.detach().item() for name, loss in losses.items()}, sum(losses.values())


def _gradient_norms(model: nn.Module) -> dict[str, float]:
    """Norm of the gradient of each part that has one."""
    norms = {}
    for part, module in model.named_children():
        grads = [p.grad.norm() for p in module.parameters() if p.grad is not None]
        if grads:
            norms[f'gradient of {part}'] = torch.stack(grads).norm().item()
    return norms


def record() -> None:
    """Replace the recorded values in :data:`RECORD` by those of a CPU in float32."""
    data = json.loads(RECORD.read_text())
    data |= {'torch': torch.__version__, 'found': take_step(torch.device('cpu'), None)}
    dump_json(RECORD, data)


if __name__ == '__main__':  # python -m projects.cmt_aqr.doctor.training
    record()
