"""Reference implementation of routed attention, with a (Q, K) tensor of weights.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, E channels of a value.
"""

import torch
from torch import Tensor

from ..routing import Routing


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, *, routing: Routing, token_mask: Tensor | None
) -> Tensor:
    """Attention of every query to every token, with the softmax in float32 or float64.

    Args:
        q: (B, H, Q, D).
        k: (B, H, K, D).
        v: (B, H, K, E).
        routing: the routing request, the same for all heads.
        token_mask: (B, K), bool: tokens that a sample has; ``None`` for all.

    Returns:
        (B, H, Q, E).
    """
    precise = torch.promote_types(q.dtype, torch.float32)
    logits = q.to(precise) @ k.to(precise).transpose(-1, -2) * q.shape[-1] ** -0.5
    if token_mask is not None:
        logits = logits.masked_fill(~token_mask[:, None, None], torch.finfo(logits.dtype).min)
    return routing.form.attention_weights(routing, logits, token_mask).to(v) @ v
