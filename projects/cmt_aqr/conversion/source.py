"""Reading of published checkpoints without running any code in them."""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import compat  # noqa: F401  (lets torch.load read a run's own checkpoints safely)

_NAMES_OF_WEIGHTS = ('state_dict', 'model')
_WRAPPER = re.compile(r'^(module\.)+')
_FORBIDDEN = re.compile(r'GLOBAL (\S+) was not an allowed global')


class ConversionError(ValueError):
    """A file cannot be read or does not fit the model; the message names the remedy."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Weights read from a file."""

    state: Mapping[str, Tensor]
    """tensors by name, without the prefix ``module.`` of a wrapped model"""
    path: Path
    found_under: str = ''
    """entry that holds the weights; empty if the file is the state dict itself"""
    beside: tuple[str, ...] = ()
    """other entries, such as the state of an optimizer; they are ignored"""
    was_wrapped: bool = False
    """whether names had the prefix ``module.``"""


def read_source(path: Path) -> Source:
    """Read a file with ``weights_only=True``, so that no code in it can run.

    Checkpoints of this project also contain logs, whose types :mod:`projects.cmt_aqr.compat`
    registers as safe.

    Raises:
        ConversionError: the file contains more than weights and plain data, is not a checkpoint, or
            has no weights in a known place.
    """
    checkpoint = _load(path)
    if not isinstance(checkpoint, Mapping):
        raise ConversionError(
            f'{path} holds a {type(checkpoint).__name__}; a checkpoint is a dict of tensors, bare '
            f'or under {" or ".join(map(repr, _NAMES_OF_WEIGHTS))}'
        )
    found_under = next(
        (name for name in _NAMES_OF_WEIGHTS if isinstance(checkpoint.get(name), Mapping)), ''
    )
    weights = checkpoint[found_under] if found_under else checkpoint
    state = _tensors(weights, path, found_under)
    unwrapped = {_WRAPPER.sub('', name): value for name, value in state.items()}
    wrapped = [name for name in state if _WRAPPER.match(name)]
    if len(unwrapped) < len(state):
        twice = sorted(name for name in wrapped if _WRAPPER.sub('', name) in state)
        raise ConversionError(
            f'{path} holds weights with and without "module." under one name: {", ".join(twice)}'
        )
    return Source(
        state=unwrapped,
        path=path,
        found_under=found_under,
        beside=tuple(str(n) for n in checkpoint if n != found_under) if found_under else (),
        was_wrapped=bool(wrapped),
    )


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = _FORBIDDEN.search(str(error))
        if forbidden is None:
            raise ConversionError(f'{path} cannot be read as a PyTorch checkpoint') from error
        raise ConversionError(
            f'{path} holds more than weights: to read its {forbidden[1]}, code that the file names '
            'would have to run, and a file from elsewhere is not trusted with that. If you trust '
            'it, keep its weights alone, on a machine where nothing can be harmed: python -c '
            f"\"import torch; c = torch.load('{path}', map_location='cpu', weights_only=False); "
            "torch.save({'state_dict': c.get('state_dict', c)}, 'weights.pth')\", and convert "
            'weights.pth'
        ) from None
    # The type of torch's error on a truncated file or another format depends on its content.
    except Exception as error:
        raise ConversionError(
            f'{path} cannot be read as a PyTorch checkpoint ({type(error).__name__}: {error}); is '
            'it whole?'
        ) from error


def _tensors(weights: Mapping, path: Path, found_under: str) -> dict[str, Tensor]:
    """All entries as tensors; detectron2's files contain NumPy arrays."""
    where = f'{path}, entry {found_under!r}' if found_under else str(path)
    others = {
        name: type(value).__name__
        for name, value in weights.items()
        if not isinstance(value, (Tensor, np.ndarray))
    }
    if others or not weights:
        found = ', '.join(f'{name!r}: {kind}' for name, kind in others.items()) or 'nothing'
        raise ConversionError(
            f'{where} must hold tensors by name, but holds {found}; weights are looked for under '
            f'{" and ".join(map(repr, _NAMES_OF_WEIGHTS))}, or as the whole file'
        )
    return {str(name): torch.as_tensor(value) for name, value in weights.items()}
