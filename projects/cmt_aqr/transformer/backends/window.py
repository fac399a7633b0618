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

from ..pairs import pair_dot, pair_sum
from ..routing import Routing
from .channels import fold_absence
from .grouped import attend_by_group, grouped_attention


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, token_mask: Tensor | None
) -> Tensor:
    """Attention without a (Q, K) tensor; see :func:`~.dense.dense_attention`.

    Without windows it is :func:`~.grouped.grouped_attention`.

    Raises:
        RuntimeError: no known kernel gives the log-sum-exp on this device or torch.
    """
    if routing.pair_bias is None:
        return grouped_attention(q, k, v, routing=routing, token_mask=token_mask)
    with torch.autocast(q.device.type, enabled=False):
        return _corrected(q.float(), k.float(), v.float(), routing, token_mask).to(v)


def _corrected(
    q: Tensor, k: Tensor, v: Tensor, routing: Routing, token_mask: Tensor | None
) -> Tensor:
    scale = q.shape[-1] ** -0.5
    q, k = fold_absence(q, k, token_mask, scale=scale)
    groups = attend_by_group(q, k, v, routing=routing, token_mask=token_mask, scale=scale)
    out = groups.sum(routing.shares(groups.lse, groups.valid_groups))
    logits = groups.lse + routing.group_bias[:, None]
    lse = logits.masked_fill(~groups.valid_groups, -torch.inf).logsumexp(dim=-1)  # (B, H, Q)

    pairs, base, difference = routing.pair_bias
    lse_of_pairs = lse.transpose(0, 1).flatten(1)[:, pairs.row]
    share = (pair_dot(q, k, pairs) * scale + base - lse_of_pairs).exp()  # (H, N)
    added = difference.expm1() * share
    total = 1 + pair_sum(added, v.new_ones(*v.shape[:3], 1), pairs)
    return (out + pair_sum(added, v, pairs)) / total
