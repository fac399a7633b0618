"""The log-sum-exp that attention gives, and its gradient, against autograd through the formula."""

import pytest
import torch
import torch.nn.functional as F

from projects.cmt_aqr.transformer.backends.with_lse import attention_with_lse


def plain(q, k, v, scale):
    logits = q @ k.transpose(-1, -2) * scale
    return logits.softmax(dim=-1) @ v, logits.logsumexp(dim=-1)


@pytest.mark.parametrize('weights', [(1.0, 0.0), (0.0, 1.0), (1.0, -2.0)])
def test_outputs_and_gradients(weights):
    """Of the output alone, of the log-sum-exp alone, and of both."""
    shapes = (5, 8), (30, 8), (30, 7)
    inputs = [torch.randn(2, 3, *s, dtype=torch.double, requires_grad=True) for s in shapes]
    q, k, v = inputs
    v = F.pad(v, (0, 1), value=1.0)
    out, lse = attention_with_lse(q, k, v, ones=7, scale=0.7)
    expected_out, expected_lse = plain(q, k, v, 0.7)
    torch.testing.assert_close(out, expected_out)
    torch.testing.assert_close(lse, expected_lse)
    others = torch.ones(8) - F.one_hot(torch.tensor(7), 8)  # the channel of ones has no gradient
    losses = [
        weights[0] * (o.sin() * others).sum() + weights[1] * log.cos().sum()
        for o, log in ((out, lse), (expected_out, expected_lse))
    ]
    for ours, theirs in zip(*(torch.autograd.grad(loss, inputs) for loss in losses), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_another_device_is_named():
    q = torch.zeros(1, 1, 1, 8, device='meta')
    with pytest.raises(NotImplementedError, match="attention on 'meta' is not at hand"):
        attention_with_lse(q, q, q, ones=0, scale=1.0)
