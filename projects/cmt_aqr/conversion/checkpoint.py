"""The file that a conversion is written to."""

import hashlib
from pathlib import Path

import torch

from ..files import replacing
from .convert import Conversion
from .source import Source


def write_checkpoint(path: Path, conversion: Conversion, source: Source, *, config: str) -> None:
    """Write a checkpoint for ``load_from`` and ``tools/test.py``, with what it was made from.

    The state dict keeps its ``_metadata``, by which spconv's kernels are loaded as they are. An
    unfinished file is never left under the name asked for.

    Args:
        path: of the file; one that is there is replaced.
        conversion: what to write.
        source: what it was made from.
        config: name of the config it was made for.
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
