"""Fast inference: optimised copies compute the parts of a detector that only predicts."""

from __future__ import annotations

from torch import nn

from .feature_cache.frozen_features import BRANCHES
from .freezing import add_fast_path, fast_path_of
from .freezing.fast_path import DTYPES
from .position_cache import PositionCache
from .running_hooks import unwrap
from .usage_error import UsageError


def fold_for_inference(
    model: nn.Module, *, dtype: str | None = None, compile: bool = False
) -> nn.Module:
    """Make a detector predict with optimised copies of its parts; returns ``model``.

    Each part of the branches and the head's convolution of the BEV map gets a
    :class:`~projects.cmt_aqr.freezing.FastPath`, whether it is frozen or not, and the head computes
    position embeddings once for consecutive frames with equal calibration. Predictions equal those
    without it up to rounding.

    Both act only in evaluation mode with gradients disabled. State dict, parameters and
    ``requires_grad`` do not change, and training continues as if it had not been called.

    Args:
        model: detector, also inside a wrapper for distributed inference. Parts that it does not
            have are skipped.
        dtype: 'float16' or 'bfloat16' to compute dense convolutions and the kernels of
            cross-attention in this precision; ``None`` keeps that of the weights, or of
            ``model.fast_path`` where the config sets it.
        compile: whether to compile the copies with ``torch.compile``.

    Raises:
        UsageError: the model is on the CPU and is to compute in float16.
        ValueError: unknown ``dtype``.
    """
    detector = unwrap(model)
    if dtype == 'float16' and next(detector.parameters()).device.type == 'cpu':
        raise UsageError('dtype float16 needs a GPU; on a CPU, use bfloat16')
    for name in (name for names in BRANCHES.values() for name in names):
        _fold(detector, name, dtype, compile)
    experts = getattr(detector, 'experts', {}).values()
    for head in filter(None, [getattr(detector, 'pts_bbox_head', None), *experts]):
        _fold(head, 'shared_conv', dtype, compile)
        head.position_cache = PositionCache(head)
        head.kernel_dtype = DTYPES[dtype]
    return model


def _fold(parent: nn.Module, name: str, dtype: str | None, compile: bool) -> None:
    """Give a child, if there is one, a fast path for inference with these and its own settings."""
    part = getattr(parent, name, None)
    if part is None:
        return
    path = fast_path_of(part)
    if path is not None:
        dtype = dtype or next(key for key, value in DTYPES.items() if value is path.dtype)
        compile = compile or path.compile
    path = fast_path_of(add_fast_path(part, name=name, dtype=dtype, compile=compile))
    if path is not None:
        path.inference = True
