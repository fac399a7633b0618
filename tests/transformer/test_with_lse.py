"""The log-sum-exp that attention gives, and its gradient, against autograd through the formula."""

import pytest
import torch

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


def test_another_device_is_named():
    q = torch.zeros(1, 1, 1, 8, device='meta')
    with pytest.raises(NotImplementedError, match="attention on 'meta' is not at hand"):
        attention_with_lse(q, q, q, scale=1.0)
