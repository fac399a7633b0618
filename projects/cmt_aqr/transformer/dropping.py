"""Attention that drops weights, on a CPU.

PyTorch's kernels for a CPU have no such dropout: ``scaled_dot_product_attention`` then spells all
weights out and keeps three tensors of H x Q x K numbers for the backward pass, for the six layers
of CMT a gigabyte on a full frame. Here the backward pass computes the weights again, one head at a
time, as in FlashAttention (Dao et al., NeurIPS 2022), and what is kept is one byte a weight:
whether it was dropped.

Shapes: B batch, H heads, Q queries, K keys, D channels of a head.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_LEVELS = 2**16  # a drawn number has sixteen bits


def dropping_attention(
    q: Tensor, k: Tensor, v: Tensor, *, dropout: float, mask: Tensor | None = None
) -> Tensor:
    """Attention of which every weight is dropped by chance, and the others are scaled up for it.

    Args:
        q: (B, H, Q, D).
        k: (B, H, K, D).
        v: (B, H, K, D).
        dropout: probability of dropping a weight, to a 65,536th.
        mask: broadcast to (B, H, Q, K); bool, True where a query may look, or float, added to the
            logits; it gets no gradient. A query that may look nowhere gets zeros.

    Returns:
        (B, H, Q, D), in the type of ``v``.

    Raises:
        ValueError: ``dropout`` is not in [0, 1).
    """
    shape = (*q.shape[:3], k.shape[2])
    kept, share = draw_kept(shape, dropout=dropout, device=q.device)
    bias = None
    if mask is not None:
        bias, blind = _as_bias(mask)
        kept &= ~blind
        bias = bias.expand(shape)
    return _DroppingAttention.apply(q, k, v, bias, kept, share)


def draw_kept(
    shape: tuple[int, ...], *, dropout: float, device: torch.device
) -> tuple[Tensor, float]:
    """Which weights are kept, bool, and the probability of it, in steps of a 65,536th.

    Four numbers come from each draw of 64 bits, a quarter of the time of ``bernoulli_``.

    Raises:
        ValueError: the probability of dropping is not in [0, 1), or rounds to 1.
    """
    dropped_levels = round(dropout * _LEVELS)
    if not 0 <= dropped_levels < _LEVELS:
        raise ValueError(f'dropout is {dropout}; it must be at least 0 and less than 1')
    size = torch.Size(shape)
    words = torch.empty(-(-size.numel() // 4), dtype=torch.int64, device=device)
    numbers = words.random_(-(2**63), None).view(torch.int16)[: size.numel()].view(size)
    return numbers >= dropped_levels - _LEVELS // 2, 1 - dropped_levels / _LEVELS


def _as_bias(mask: Tensor) -> tuple[Tensor, Tensor]:
    """A mask in float32, and (..., Q, 1) which queries may look nowhere; those look anywhere."""
    bias = mask
    if mask.dtype == torch.bool:
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float('-inf'))
    bias = bias.detach().float()
    blind = bias.isneginf().all(dim=-1, keepdim=True)
    return bias.masked_fill(blind, 0.0), blind


class _DroppingAttention(torch.autograd.Function):
    """One head after another: all that is as large as Q x K then fits into the cache."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor | None,
        kept: Tensor,
        share: float,
    ) -> Tensor:
        ctx.share = share
        out = torch.empty((*q.shape[:3], v.shape[3]), dtype=v.dtype, device=v.device)
        with torch.autocast(q.device.type, enabled=False):
            for head in _heads(q):
                weights = _weights(q[head], k[head], _of(bias, head))
                out[head] = (weights.mul_(kept[head]) @ v[head].float()).div_(share)
        ctx.save_for_backward(q, k, v, bias, kept, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, bias, kept, out = ctx.saved_tensors
        scale = q.shape[-1] ** -0.5
        grads = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for head in _heads(q):
            own_q, own_k, own_v = q[head].float(), k[head].float(), v[head].float()
            own_grad = grad[head].float() / ctx.share
            weights = _weights(own_q, own_k, _of(bias, head))
            of_weights = (own_grad @ own_v.T).mul_(kept[head])
            grads[2][head] = (weights * kept[head]).T @ own_grad
            # Of the gradient of a query's weights, as they weigh it.
            mean = (grad[head].float() * out[head].float()).sum(dim=-1, keepdim=True)
            of_logits = of_weights.sub_(mean).mul_(weights).mul_(scale)
            grads[0][head] = of_logits @ own_k
            grads[1][head] = of_logits.T @ own_q
        return *grads, None, None, None


def _heads(x: Tensor) -> list[tuple[int, int]]:
    """The places of all heads of all samples."""
    return [(sample, head) for sample in range(x.shape[0]) for head in range(x.shape[1])]


def _of(bias: Tensor | None, head: tuple[int, int]) -> Tensor | None:
    return None if bias is None else bias[head]


def _weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """(Q, K) in float32, before any is dropped."""
    q, k, scale = q.float(), k.float(), q.shape[-1] ** -0.5
    logits = (q * scale) @ k.T if bias is None else torch.addmm(bias, q, k.T, alpha=scale)
    return logits.softmax(dim=-1)
