"""Biases and masks by group as extra channels of queries and keys.

A query gets the biases of the groups, a key the one-hot code of its group: their product is the
bias of the pair, and the attention kernel needs no support for it.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, M token groups.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..token_groups import TokenGroups

ABSENT = -1e4
"""Penalty on the logit of an absent token: finite, to keep gradients finite, and far below the
logits of trained models, which differ by hundreds."""


def fold_bias(
    q: Tensor, k: Tensor, bias: Tensor, groups: TokenGroups, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Append the bias (B, Q, M) by group to queries and keys whose products are to be scaled.

    Returns:
        (B, H, Q, D + M) and (B, H, K, D + M).
    """
    return append(q, bias / scale), append(k, groups.one_hot(like=k))


def fold_absence(
    q: Tensor, k: Tensor, token_mask: Tensor | None, *, scale: float
) -> tuple[Tensor, Tensor]:
    """Append a channel that masks the tokens a sample lacks, by ``token_mask`` (B, K)."""
    if token_mask is None:
        return q, k
    penalty = max(ABSENT / scale, torch.finfo(q.dtype).min)  # zero times an infinity is NaN
    return append(q, q.new_full((q.shape[2], 1), penalty)), append(k, ~token_mask[..., None])


def append(x: Tensor, channels: Tensor) -> Tensor:
    """(B, H, N, D) with channels (B, N, more) or (N, more) appended to those of every head."""
    channels = channels.to(x).expand(len(x), -1, -1)[:, None]
    return torch.cat([x, channels.expand(-1, x.shape[1], -1, -1)], dim=-1)


def equally_wide(*inputs: Tensor) -> list[Tensor]:
    """Pad channels with zeros to equal widths, on a GPU to a multiple of 8, as kernels require."""
    width = max(x.shape[-1] for x in inputs)
    if inputs[0].device.type != 'cpu':
        width = -(-width // 8) * 8
    return [x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1])) for x in inputs]
