"""Attention together with its log-sum-exp, both with their gradients.

Shapes: B batch, H heads, Q queries, K tokens, F channels of queries and keys, E of values.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .channels import equally_wide

aten = torch.ops.aten


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Attention, and the logarithm of the sum of exponentials that its softmax divides by.

    Torch's kernels give the log-sum-exp without a gradient. With logits s, weights p, outputs o
    and a gradient d of o, their backward pass gives ds = p (d v - d o). The log-sum-exp's gradient
    g is to add p g. So the backward pass is given, for o, an o' with d o' = d o - g. In half
    precision o' has no room for that: there the values get a channel of ones, whose output, which
    is one, is taken for zero and its gradient for g.

    Args:
        q: (B, H, Q, F).
        k: (B, H, K, F).
        v: (B, H, K, E).
        scale: of the logits.

    Returns:
        (B, H, Q, E) and (B, H, Q), the latter in float32 or finer.

    Raises:
        NotImplementedError: on a device other than the CPU and CUDA.
    """
    if q.device.type not in ('cpu', 'cuda'):
        raise NotImplementedError(
            f"the log-sum-exp of attention on {q.device.type!r} is not at hand; use 'dense'"
        )
    return _AttentionWithLse.apply(q, k, v, scale)


class _AttentionWithLse(torch.autograd.Function):
    """What is kept for the backward pass is the inputs as they are given, without a copy."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        kernel = _forward_cpu if q.device.type == 'cpu' else _forward_cuda
        out, lse, *rest = kernel(*equally_wide(q, k, v), scale)
        out = out[..., : v.shape[-1]]
        ctx.save_for_backward(q, k, v, out, lse, *rest)
        ctx.scale = scale
        return out, lse[..., : q.shape[2]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *rest = ctx.saved_tensors
        channels = v.shape[-1]
        if out.dtype in (torch.float32, torch.float64):
            grad_out, out = _take_from_product(grad_out, out, grad_lse)
        else:
            v = F.pad(v, (0, 1), value=1.0)
            grad_out = torch.cat([grad_out, grad_lse[..., None].to(grad_out)], dim=-1)
        wide_q, wide_k, wide_v = equally_wide(q, k, v)
        missing = [(0, wide_v.shape[-1] - x.shape[-1]) for x in (grad_out, out)]
        grad_out, out = F.pad(grad_out, missing[0]), F.pad(out, missing[1])
        kernel = _backward_cpu if q.device.type == 'cpu' else _backward_cuda
        grads = kernel(grad_out, wide_q, wide_k, wide_v, out, lse, *rest, scale=ctx.scale)
        widths = q.shape[-1], k.shape[-1], channels
        return *(grad[..., :width] for grad, width in zip(grads, widths, strict=True)), None


def _take_from_product(grad: Tensor, out: Tensor, amount: Tensor) -> tuple[Tensor, Tensor]:
    """Change ``out`` (..., E) so that its product with ``grad`` is less by ``amount`` (...).

    A row without a gradient gets one that is too small to count.
    """
    amount = amount[..., None]
    least = amount.abs() * 1e-12
    largest = grad.abs().amax(dim=-1, keepdim=True)
    first = torch.arange(grad.shape[-1], device=grad.device) == 0
    grad = torch.where(largest < least, least * first, grad)
    largest = torch.maximum(largest, least).clamp(min=torch.finfo(grad.dtype).tiny)
    unit = grad / largest
    square = unit.square().sum(dim=-1, keepdim=True).clamp(min=1)  # less in a row of zeros alone
    return grad, out - amount / largest * unit / square


def _forward_cpu(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, ...]:
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, scale=scale)


def _backward_cpu(*saved: Tensor, scale: float) -> tuple[Tensor, ...]:
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *saved, 0.0, False, scale=scale
    )


def _forward_cuda(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, ...]:
    """The log-sum-exp may be padded to more queries."""
    return aten._scaled_dot_product_efficient_attention(q, k, v, None, True, scale=scale)


def _backward_cuda(
    grad_out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    seed: Tensor,
    offset: Tensor,
    *,
    scale: float,
) -> tuple[Tensor, ...]:
    gradients = aten._scaled_dot_product_efficient_attention_backward(
        grad_out, q, k, v, None, out, lse, seed, offset, 0.0, [True, True, True, False],
        scale=scale,
    )  # fmt: skip
    return gradients[:3]
