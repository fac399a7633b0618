"""Attention under a bias in windows: folded attention, then a correction at the windows' tokens.

A further bias b at a token multiplies its weight before normalisation by e^b. With the folded
logits s, their log-sum-exp and the folded output o, the output is

    (o + sum_w (e^b - 1) e^(s - lse) v) / (1 + sum_w (e^b - 1) e^(s - lse)),

the sums over the tokens of the query's windows: Q * W numbers, never Q * K. Where a suppressed
window holds nearly all of the attention, the denominator is a small difference: all of it is
computed in float32, also under automatic mixed precision.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value, N pairs
of a query and a token in its window.
"""

import torch
from torch import Tensor

from ..attention_bias import AttentionBias, Routing
from ..pairs import pair_dot, pair_sum
from .channels import fold_absence, fold_bias
from .folded import folded_attention
from .with_lse import attention_with_lse


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention without a Q x K tensor; see :func:`~.dense.dense_attention`.

    Where there are no windows it is :func:`~.folded.folded_attention`.
    """
    if not isinstance(routing, AttentionBias) or not routing.windows:
        return folded_attention(q, k, v, routing=routing, present=present)
    with torch.autocast(q.device.type, enabled=False):
        return _corrected(q.float(), k.float(), v.float(), routing, present).to(v)


def _corrected(
    q: Tensor, k: Tensor, v: Tensor, bias: AttentionBias, present: Tensor | None
) -> Tensor:
    scale = q.shape[-1] ** -0.5
    head_channels = q.shape[-1]
    q, k = fold_bias(q, k, bias, scale=scale)
    q, k = fold_absence(q, k, present, scale=scale)
    out, lse = attention_with_lse(q, k, v, scale=scale)

    pairs, further = bias.in_windows
    # A key's one-hot code sums to one: what is taken from its channels is taken from every logit.
    q = torch.cat([q[..., :head_channels], q[..., head_channels:] - lse[..., None] / scale], dim=-1)
    share = (pair_dot(q, k, pairs) * scale).exp()  # (H, N)
    added = further.expm1() * share
    total = 1 + pair_sum(added, v.new_ones(*v.shape[:3], 1), pairs)
    return (out + pair_sum(added, v, pairs)) / total
