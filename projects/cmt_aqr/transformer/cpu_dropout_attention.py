"""Attention with dropout of its weights, for a CPU.

PyTorch's CPU kernels have no such dropout: ``scaled_dot_product_attention`` then computes all
weights explicitly and keeps three tensors of H x Q x K numbers for the backward pass, a gigabyte
for the six layers of CMT on a full frame. Here the backward pass recomputes the weights, one head
at a time, as in FlashAttention (Dao et al., NeurIPS 2022), and keeps one byte a weight: whether it
was dropped.

Shapes: B batch, H heads, Q queries, K keys, D channels of a head.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

_LEVELS = 2**16  # a drawn number has sixteen bits


def cpu_dropout_attention(
    q: Tensor, k: Tensor, v: Tensor, *, dropout: float, attn_mask: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention with dropout on the attention weights.

    Args:
        q: (B, H, Q, D).
        k: (B, H, K, D).
        v: (B, H, K, D), whose type the output (B, H, Q, D) has.
        dropout: probability of dropping a weight, in [0, 1), rounded to a multiple of 1 / 65,536;
            the others are scaled up accordingly.
        attn_mask: broadcast to (B, H, Q, K); bool, True where a query may attend, or float, added
            to the logits; it gets no gradient. The output of a query without any key is zero.
    """
    shape = (*q.shape[:3], k.shape[2])
    kept, share = draw_kept(shape, dropout=dropout, device=q.device)
    bias = None
    if attn_mask is not None:
        bias, keyless = _as_bias(attn_mask)
        kept &= ~keyless
        bias = bias.expand(shape)
    return _CpuDropoutAttention.apply(q, k, v, bias, kept, share)


def draw_kept(
    shape: tuple[int, ...], *, dropout: float, device: torch.device
) -> tuple[Tensor, float]:
    """A bool tensor of the weights that are kept, and their probability, a multiple of 1 / 65,536.

    Each draw of 64 bits gives four numbers, which takes a quarter of the time of ``bernoulli_``.
    """
    dropped_levels = round(dropout * _LEVELS)
    if not 0 <= dropped_levels < _LEVELS:
        raise ValueError(f'dropout is {dropout}; it must be at least 0 and less than 1')
    size = torch.Size(shape)
    words = torch.empty(-(-size.numel() // 4), dtype=torch.int64, device=device)
    numbers = words.random_(-(2**63), None).view(torch.int16)[: size.numel()].view(size)
    return numbers >= dropped_levels - _LEVELS // 2, 1 - dropped_levels / _LEVELS


def _as_bias(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The mask as a bias in float32, zero for queries without a key; these queries (..., Q, 1)."""
    bias = mask
    if mask.dtype == torch.bool:
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, float('-inf'))
    bias = bias.detach().float()
    keyless = bias.isneginf().all(dim=-1, keepdim=True)
    return bias.masked_fill(keyless, 0.0), keyless


class _CpuDropoutAttention(torch.autograd.Function):
    """One head after another, so that its (Q, K) tensors fit into the cache."""

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
                weights = _weights(q[head], k[head], None if bias is None else bias[head])
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
            weights = _weights(own_q, own_k, None if bias is None else bias[head])
            grad_weights = (own_grad @ own_v.T).mul_(kept[head])
            grads[2][head] = (weights * kept[head]).T @ own_grad
            # Mean of the gradient of a query's weights, weighted by these.
            mean = (grad[head].float() * out[head].float()).sum(dim=-1, keepdim=True)
            grad_logits = grad_weights.sub_(mean).mul_(weights).mul_(scale)
            grads[0][head] = grad_logits @ own_k
            grads[1][head] = grad_logits.T @ own_q
        return *grads, None, None, None


def _heads(x: Tensor) -> list[tuple[int, int]]:
    """Sample and head of every head of the batch."""
    return [(sample, head) for sample in range(x.shape[0]) for head in range(x.shape[1])]


def _weights(q: Tensor, k: Tensor, bias: Tensor | None) -> Tensor:
    """(Q, K) attention weights in float32, before dropout."""
    q, k, scale = q.float(), k.float(), q.shape[-1] ** -0.5
    logits = (q * scale) @ k.T if bias is None else torch.addmm(bias, q, k.T, alpha=scale)
    return logits.softmax(dim=-1)
