"""The log-sum-exp that attention gives, and its gradient, against autograd through the formula."""

import pytest
import torch

from projects.cmt_aqr.transformer import kernels
from projects.cmt_aqr.transformer.backends.with_lse import attention_with_lse


def plain(q, k, v, scale):
    logits = q @ k.transpose(-1, -2) * scale
    return logits.softmax(dim=-1) @ v, logits.logsumexp(dim=-1)


@pytest.mark.parametrize('channels', [6, 7, 8, 11])
@pytest.mark.parametrize('weights', [(1.0, 0.0), (0.0, 1.0), (1.0, -2.0)])
def test_outputs_and_gradients(weights, channels):
    """Of the output alone, of the log-sum-exp alone, and of both."""
    shapes = (5, 8), (30, 8), (30, channels)
    inputs = [torch.randn(2, 3, *s, dtype=torch.double, requires_grad=True) for s in shapes]
    q, k, v = inputs
    out, lse = attention_with_lse(q, k, v, scale=0.7)
    expected_out, expected_lse = plain(q, k, v, 0.7)
    torch.testing.assert_close(out, expected_out)
    torch.testing.assert_close(lse, expected_lse)
    losses = [
        weights[0] * o.sin().sum() + weights[1] * log.cos().sum()
        for o, log in ((out, lse), (expected_out, expected_lse))
    ]
    for ours, theirs in zip(*(torch.autograd.grad(loss, inputs) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_rows_whose_output_has_next_to_no_gradient(dtype):
    q, k, v = (torch.randn(1, 2, n, 8, dtype=dtype, requires_grad=True) for n in (6, 30, 30))
    rows = torch.tensor([0, 1e-30, 1e-15, 1e-6, 1, 1e6], dtype=dtype)[:, None]
    lse_rows = torch.tensor([1, 1, 1, 1, 1, 0], dtype=dtype)
    gradients = []
    for attention in (attention_with_lse, plain):
        out, lse = attention(q, k, v, scale=0.3)
        loss = (out.sin() * rows).sum() + (lse * lse_rows).sum()
        gradients.append(torch.autograd.grad(loss, (q, k, v)))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_no_gradient_at_all():
    q, k, v = (torch.randn(1, 2, n, 8, requires_grad=True) for n in (6, 30, 30))
    out, lse = attention_with_lse(q, k, v, scale=0.3)
    for gradient in torch.autograd.grad(0 * out.sum() + 0 * lse.sum(), (q, k, v)):
        assert not gradient.any()


def test_in_half_precision():
    q, k, v = (torch.randn(2, 3, n, 8) for n in (5, 30, 30))
    gradients = []
    for attention, dtype in ((attention_with_lse, torch.bfloat16), (plain, torch.float32)):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out, lse = attention(*inputs, scale=0.3)
        loss = out.float().sin().sum() + lse.float().cos().sum()
        gradients.append([g.float() for g in torch.autograd.grad(loss, inputs)])
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_another_device_is_named(monkeypatch):
    monkeypatch.delitem(kernels.KERNELS, 'meta')
    q = torch.zeros(1, 1, 1, 8, device='meta')
    with pytest.raises(RuntimeError, match=r"no kernel for 'meta' is known .* use .*'dense'"):
        attention_with_lse(q, q, q, scale=1.0)
