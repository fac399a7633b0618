"""Error of a run that has diverged, and the file that records it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch
from mmengine.dist import get_rank
from mmengine.runner import Runner

from ..files import dump_json


def loss_parts(outputs: Mapping | None) -> dict[str, float]:
    """Every entry whose name contains 'loss', as summed by mmengine."""
    return {
        name: float(torch.as_tensor(value).detach())
        for name, value in (outputs or {}).items()
        if 'loss' in name
    }


def stop(
    runner: Runner,
    what: str,
    *,
    losses: Mapping[str, float],
    samples: Sequence[str],
    gradients: Mapping[str, float] | None = None,
) -> NoReturn:
    """Raise a FloatingPointError and write its content to ``<log_dir>/not_finite_rank<R>.json``.

    Args:
        runner: the run.
        what: the quantity that is not finite, as a sentence.
        losses: parts of the loss in the last iteration.
        samples: names of this process's samples in the step.
        gradients: largest absolute gradient by part of the model.
    """
    facts = dict(epoch=runner.epoch + 1, iteration=runner.iter + 1, samples=[*samples])
    facts |= dict(what=what, losses={**losses}, gradients={**(gradients or {})})
    path = Path(runner.log_dir) / f'not_finite_rank{get_rank()}.json'
    dump_json(path, facts)
    parts = [f'  {name}: {value:g}' for name, value in losses.items()]
    if gradients:
        parts += ['largest gradients', *(f'  {n}: {value:g}' for n, value in gradients.items())]
    raise FloatingPointError(
        f'{what} in epoch {facts["epoch"]}, iteration {facts["iteration"]}\n'
        + '\n'.join(parts)
        + f'\nsamples: {", ".join(samples) or "unknown"}\nkept in {path}'
    )
