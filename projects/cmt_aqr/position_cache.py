"""Cache of tensors that depend only on weights and calibration, such as position embeddings."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import nn

from .freezing import tensor_state


class PositionCache:
    """Keeps the latest value of each computation while its inputs and a module do not change.

    It computes only where gradients are disabled; otherwise nothing is kept or reused. Inputs are
    compared by keys that the host knows, so that a lookup does not wait for the device. As for a
    :class:`~projects.cmt_aqr.freezing.FastPath`, writes to the module through ``.data`` are not
    noticed: call :meth:`clear` after them. Deep copies and pickles start empty.

    Args:
        module: its tensors enter all computations.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self._kept: dict[str, tuple[Hashable, Any]] = {}

    def __call__(self, name: str, key: Hashable, compute: Callable[[], Any]) -> Any:
        """``compute()``, or the value that is kept under this ``name`` for an equal ``key``."""
        if torch.is_grad_enabled():
            return compute()
        key = (key, tensor_state(self.module))
        kept = self._kept.get(name)
        if kept is None or kept[0] != key:
            self._kept[name] = kept = (key, compute())
        return kept[1]

    def clear(self) -> None:
        """Delete all values and free their memory."""
        self._kept = {}

    def __getstate__(self) -> dict:
        """All attributes except the values."""
        return {**vars(self), '_kept': {}}
