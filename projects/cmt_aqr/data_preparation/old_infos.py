"""Info files as MMDetection3D wrote them before 1.1: ``infos`` and ``metadata``, where today's
have ``data_list`` and ``metainfo``.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_OLD_KEYS = ('infos', 'metadata')
# All of them longer than wide.
_LONG_CLASSES = ('car', 'truck', 'bus', 'trailer')


def is_old(path: Path) -> bool:
    """Whether a file is an info file of the old format; no more than its beginning is read."""
    with path.open('rb') as file:
        try:
            texts = (text for code, text, _ in pickletools.genops(file) if 'UNICODE' in code.name)
            return next(texts, None) in _OLD_KEYS
        except ValueError:  # no pickle, or not whole
            return False


def check_old(infos: Any, path: Path) -> None:
    """See that old infos say of which version of nuScenes they are, and have boxes as of 1.0 on.

    Before 1.0 the first size of a box was its width, and its yaw was measured from another axis;
    mmdet3d's converter would take them as they are.

    Args:
        infos: content of the file.
        path: of it, for messages.

    Raises:
        ValueError: they are not.
    """
    whole = isinstance(infos, Mapping) and all(key in infos for key in _OLD_KEYS)
    if not whole or 'version' not in infos['metadata']:
        raise ValueError(f"{path} must hold {' and '.join(_OLD_KEYS)} with nuScenes' version")
    annotated = [info for info in infos['infos'] if 'gt_boxes' in info]  # not in the test split
    sizes = [info['gt_boxes'][np.isin(info['gt_names'], _LONG_CLASSES), 3:5] for info in annotated]
    first, second = np.concatenate([np.empty((0, 2)), *sizes]).T
    if np.count_nonzero(first < second) > len(first) / 2:
        raise ValueError(
            f'{path} is of MMDetection3D before 1.0, where boxes had width and length the other '
            'way round and another yaw; make info files anew: '
            f'python tools/create_data.py ROOT --version {infos["metadata"]["version"]}'
        )
