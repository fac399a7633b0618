"""Attention with a bias by group, which becomes extra channels of queries and keys.

Any kernel can compute it, also one without support for a bias.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, M token
groups.
"""

from torch import Tensor

from ..kernels import scaled_dot_product_attention
from ..routing import Routing
from .channels import equally_wide, fold_absence, fold_bias


def folded_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, token_mask: Tensor | None
) -> Tensor:
    """Attention without a (Q, K) tensor; see :func:`~.dense.dense_attention`.

    Raises:
        ValueError: the form is not a bias on the logits, or has a bias in windows.
    """
    bias = routing.group_bias
    if bias is None:
        name = type(routing.form).__name__
        raise ValueError(f"attention 'folded' cannot compute a {name}; use 'grouped'")
    if routing.pair_bias is not None:
        raise ValueError("attention 'folded' cannot compute a bias in windows; use 'window'")
    scale = q.shape[-1] ** -0.5
    channels = v.shape[-1]
    q, k = fold_bias(q, k, bias, routing.groups, scale=scale)
    q, k = fold_absence(q, k, token_mask, scale=scale)
    out = scaled_dot_product_attention(*equally_wide(q, k, v), scale=scale)
    return out[..., :channels]
