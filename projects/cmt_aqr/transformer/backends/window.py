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
from .channels import fold_absence, fold_bias
from .folded import folded_attention
from .pairs import Pairs, pair_dot, pair_sum
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

    pairs, further = _further_bias(bias, num_heads=q.shape[1])
    # A key's one-hot code sums to one: what is taken from its channels is taken from every logit.
    q = torch.cat([q[..., :head_channels], q[..., head_channels:] - lse[..., None] / scale], dim=-1)
    share = (pair_dot(q, k, pairs) * scale).exp()  # (H, N)
    added = further.expm1() * share
    total = 1 + pair_sum(added, v.new_ones(*v.shape[:3], 1), pairs)
    return (out + pair_sum(added, v, pairs)) / total


def _further_bias(bias: AttentionBias, *, num_heads: int) -> tuple[Pairs, Tensor]:
    """The pairs of all windows, and what is added to the bias by group at each of them (N,)."""
    parts = []
    by_group = bias.everywhere
    for window in bias.windows:
        sample, query = (
            index[:, None].expand_as(window.token) for index in (window.sample, window.query)
        )
        base = by_group[sample, query, bias.groups[window.token]]
        limited = (base + window.added).clamp(-bias.limit, bias.limit)
        further = limited - base.clamp(-bias.limit, bias.limit)
        parts.append([x.flatten() for x in (sample, query, window.token, further)])
    sample, query, token, further = (torch.cat(part) for part in zip(*parts, strict=True))
    batch_size, num_queries = by_group.shape[:2]
    pairs = Pairs.of(
        sample,
        query,
        token,
        shape=(batch_size, num_heads, num_queries, len(bias.groups)),
    )
    return pairs, further[pairs.order]
