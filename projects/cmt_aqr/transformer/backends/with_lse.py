"""Attention with its log-sum-exp, both differentiable.

Shapes: B batch, H heads, Q queries, K tokens, F channels of queries and keys, E of values.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..kernels import KERNELS, attention_forward


def attention_with_lse(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> tuple[Tensor, Tensor]:
    """Attention and the log-sum-exp of its logits, by which its softmax normalises.

    PyTorch's kernels give the log-sum-exp without a gradient. With logits s, weights p, outputs o
    and the gradient d of o, their backward pass computes ds = p (d v - d o). The gradient g of the
    log-sum-exp adds p g to this. So the backward pass gets, instead of o, an o' with
    d o' = d o - g. In half precision o' cannot hold this difference: there the values get a channel
    of ones, whose output is passed as zero and whose gradient as g.

    Args:
        q: (B, H, Q, F).
        k: (B, H, K, F).
        v: (B, H, K, E).
        scale: factor of the logits.

    Returns:
        (B, H, Q, E) and (B, H, Q), the latter in float32 or float64.

    Raises:
        RuntimeError: no known kernel gives the log-sum-exp on this device or torch.
    """
    return _AttentionWithLse.apply(q, k, v, scale)


class _AttentionWithLse(torch.autograd.Function):
    """Keeps the inputs as given for the backward pass, without a copy."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        out, lse, *state = attention_forward(q, k, v, scale=scale)
        ctx.save_for_backward(q, k, v, out, lse, *state)
        ctx.scale = scale
        return out, lse[..., : q.shape[2]]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, *state = ctx.saved_tensors
        channels = v.shape[-1]
        if out.dtype in (torch.float32, torch.float64):
            grad_out, out = _take_from_product(grad_out, out, grad_lse)
        else:
            v = F.pad(v, (0, 1), value=1.0)
            grad_out = torch.cat([grad_out, grad_lse[..., None].to(grad_out)], dim=-1)
            out = F.pad(out, (0, 1))
        grad_q, grad_k, grad_v = KERNELS[q.device.type].backward(
            grad_out, q, k, v, out, lse, *state, scale=ctx.scale
        )
        return grad_q, grad_k, grad_v[..., :channels], None


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
