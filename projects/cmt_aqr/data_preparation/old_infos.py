"""Info files of MMDetection3D before 1.1, with ``infos`` and ``metadata``.

Since 1.1 they have ``data_list`` and ``metainfo``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_OLD_KEYS = ('infos', 'metadata')
# Classes whose objects are longer than wide.
_LONG_CLASSES = ('car', 'truck', 'bus', 'trailer')


def is_old(path: Path) -> bool:
    """Whether a file is an info file of the old format; reads only its beginning."""
    with path.open('rb') as file:
        try:
            texts = (text for code, text, _ in pickletools.genops(file) if 'UNICODE' in code.name)
            return next(texts, None) in _OLD_KEYS
        except ValueError:  # not a pickle, or truncated
            return False


def check_old(infos: Any, path: Path) -> None:
    """Checks that old infos state nuScenes' version and have the boxes of MMDetection3D 1.0.

    Before 1.0 the first size of a box was its width, and its yaw was measured from another axis,
    which mmdet3d's converter does not notice.

    Args:
        infos: content of the file.
        path: path of the file, for messages.

    Raises:
        ValueError: the version is missing, or the boxes are older.
    """
    whole = isinstance(infos, Mapping) and all(key in infos for key in _OLD_KEYS)
    if not whole or 'version' not in infos['metadata']:
        raise ValueError(f"{path} must hold {' and '.join(_OLD_KEYS)} with nuScenes' version")
    annotated = [info for info in infos['infos'] if 'gt_boxes' in info]  # not in the test split
    sizes = [info['gt_boxes'][np.isin(info['gt_names'], _LONG_CLASSES), 3:5] for info in annotated]
    first, second = np.concatenate([np.empty((0, 2)), *sizes]).T
    if np.count_nonzero(first < second) > len(first) / 2:
        raise ValueError(
            f'{path} is of MMDetection3D before 1.0, whose boxes have width and length exchanged '
            'and another yaw; make new info files: '
            f'python tools/create_data.py ROOT --version {infos["metadata"]["version"]}'
        )
