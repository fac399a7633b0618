"""Attention under a bias in windows: by group, then a correction at the windows' tokens.

A further bias b at a token multiplies its weight before normalisation by e^b. With the logits s
under the bias by group, their log-sum-exp and the output o, the output is

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
from .channels import fold_absence
from .grouped import attend_by_group, grouped_attention


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, present: Tensor | None
) -> Tensor:
    """Attention without a Q x K tensor; see :func:`~.dense.dense_attention`.

    Where there are no windows it is :func:`~.grouped.grouped_attention`.

    Raises:
        RuntimeError: no known kernel gives the log-sum-exp on this device or torch.
    """
    if not isinstance(routing, AttentionBias) or not routing.windows:
        return grouped_attention(q, k, v, routing=routing, present=present)
    with torch.autocast(q.device.type, enabled=False):
        return _corrected(q.float(), k.float(), v.float(), routing, present).to(v)


def _corrected(
    q: Tensor, k: Tensor, v: Tensor, bias: AttentionBias, present: Tensor | None
) -> Tensor:
    scale = q.shape[-1] ** -0.5
    q, k = fold_absence(q, k, present, scale=scale)
    groups = attend_by_group(q, k, v, routing=bias, present=present, scale=scale)
    out = groups.sum(bias.shares(groups.lse, groups.there))
    lse = bias.logits(groups.lse, groups.there).logsumexp(dim=-1)  # (B, H, Q)

    pairs, base, further = bias.in_windows
    lse_there = lse.transpose(0, 1).flatten(1)[:, pairs.by_query.bag]
    share = (pair_dot(q, k, pairs) * scale + base - lse_there).exp()  # (H, N)
    added = further.expm1() * share
    total = 1 + pair_sum(added, v.new_ones(*v.shape[:3], 1), pairs)
    return (out + pair_sum(added, v, pairs)) / total
