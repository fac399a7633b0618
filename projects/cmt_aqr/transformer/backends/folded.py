"""Attention with a bias by group, which becomes extra channels of queries and keys.

Any kernel can compute it, also one without support for a bias.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

from torch import Tensor

from ..attention_bias import AttentionBias, Routing
from ..kernels import scaled_dot_product_attention
from .channels import equally_wide, fold_absence, fold_bias


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention without a Q x K tensor; see :func:`~.dense.dense_attention`.

    Raises:
        ValueError: a gate, a mix or a bias in windows.
    """
    if not isinstance(routing, AttentionBias):
        name = type(routing).__name__
        raise ValueError(f"attention 'folded' cannot honour an {name}; use 'grouped'")
    if routing.windows:
        raise ValueError("attention 'folded' cannot honour a bias in windows; use 'window'")
    scale = q.shape[-1] ** -0.5
    channels = v.shape[-1]
    q, k = fold_bias(q, k, routing, scale=scale)
    q, k = fold_absence(q, k, present, scale=scale)
    out = scaled_dot_product_attention(*equally_wide(q, k, v), scale=scale)
    return out[..., :channels]
