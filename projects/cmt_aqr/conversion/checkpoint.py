"""Writing of converted checkpoints."""

import hashlib
from pathlib import Path

import torch

from ..files import replacing
from .convert import Conversion
from .source import Source


def write_checkpoint(path: Path, conversion: Conversion, source: Source, *, config: str) -> None:
    """Write a checkpoint for ``load_from`` and ``tools/test.py``, with a note on its origin.

    The state dict keeps its ``_metadata``, so that spconv's kernels are not permuted on load.

    Args:
        path: file to write; an existing file is replaced once the new one is complete.
        conversion: converted weights.
        source: file that they were converted from.
        config: name of the config of the model.
    """
    meta = {
        'converted_from': source.path.name,
        'sha256': hashlib.sha256(source.path.read_bytes()).hexdigest(),
        'layout': conversion.layout.value,
        'config': config,
        'left_out': list(conversion.left_out),
        'missing': list(conversion.missing),
    }
    with replacing(path) as temporary:
        torch.save({'meta': meta, 'state_dict': conversion.state}, temporary)
