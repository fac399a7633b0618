"""Every back end against the dense reference: outputs and gradients."""

import pytest
import torch

from projects.cmt_aqr.transformer import AttentionBias, WindowBias
from projects.cmt_aqr.transformer.backends import dense_attention, folded_attention

BATCH, HEADS, QUERIES, WIDTH = 2, 4, 7, 8


def make_inputs(keys=60, spread=1.0):
    """Queries, keys and values whose logits spread by about so much."""
    q = torch.randn(BATCH, HEADS, QUERIES, WIDTH) * spread
    return [q, torch.randn(BATCH, HEADS, keys, WIDTH), torch.randn(BATCH, HEADS, keys, WIDTH)]


def make_bias(keys=60, num_groups=2):
    """By group, beyond the limit now and then."""
    everywhere = 4 * torch.randn(BATCH, QUERIES, num_groups)
    return AttentionBias(everywhere, torch.arange(keys) * num_groups // keys, (), 5.0)


def run(attention, inputs, bias, present=None, trainable=('q', 'k', 'v', 'everywhere')):
    """The output, and the gradient of each input that is trained."""
    inputs = dict(zip('qkv', (x.detach().clone() for x in inputs), strict=True))
    everywhere = bias.everywhere.detach().clone()
    leaves = {**inputs, 'everywhere': everywhere}
    for name in trainable:
        leaves[name].requires_grad_()
    out = attention(**inputs, bias=bias._replace(everywhere=everywhere), present=present)
    upstream = torch.linspace(-1, 1, out.numel()).sin().view_as(out)
    out.backward(upstream)
    return out.detach(), {name: leaves[name].grad for name in trainable}


def assert_equal(result, reference, forward=1e-5, gradient=1e-4):
    """Outputs absolutely; gradients relative to the largest of their kind."""
    torch.testing.assert_close(result[0], reference[0], atol=forward, rtol=0)
    assert result[1].keys() == reference[1].keys()
    for name, grad in result[1].items():
        expected = reference[1][name]
        error = (grad - expected).norm() / expected.norm().clamp(min=1e-12)
        assert error <= gradient, f'{name}: {error:.2g}'


@pytest.mark.parametrize('num_groups', [2, 7])
@pytest.mark.parametrize('spread', [1.0, 30.0])
def test_folded_equals_dense(num_groups, spread):
    inputs, bias = make_inputs(spread=spread), make_bias(num_groups=num_groups)
    assert_equal(run(folded_attention, inputs, bias), run(dense_attention, inputs, bias))


@pytest.mark.parametrize('trainable', [('everywhere',), ('q', 'k', 'v')])
def test_folded_where_only_the_bias_or_only_the_rest_is_trained(trainable):
    inputs, bias = make_inputs(), make_bias()
    assert_equal(
        run(folded_attention, inputs, bias, trainable=trainable),
        run(dense_attention, inputs, bias, trainable=trainable),
    )


@pytest.mark.parametrize('spread', [1.0, 30.0])
def test_tokens_that_are_not_there_have_no_part(spread):
    inputs, bias = make_inputs(spread=spread), make_bias(num_groups=3)
    present = torch.arange(60).expand(BATCH, -1) < torch.tensor([[60], [35]])
    result = run(folded_attention, inputs, bias, present)
    assert_equal(result, run(dense_attention, inputs, bias, present))
    _, gradients = result
    assert not gradients['k'][1, :, 35:].any()
    assert not gradients['v'][1, :, 35:].any()


def test_a_zero_bias_is_plain_attention():
    q, k, v = make_inputs()
    bias = make_bias()._replace(everywhere=torch.zeros(BATCH, QUERIES, 2))
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    out = folded_attention(q, k, v, bias=bias, present=None)
    torch.testing.assert_close(out, plain, atol=1e-6, rtol=0)


def test_folded_refuses_windows():
    q, k, v = make_inputs()
    zero = torch.zeros(1, dtype=torch.long)
    window = WindowBias(zero, zero, zero[:, None], torch.ones(1, 1))
    bias = make_bias()._replace(windows=(window,))
    with pytest.raises(ValueError, match="'folded' cannot honour a bias with windows"):
        folded_attention(q, k, v, bias=bias, present=None)
