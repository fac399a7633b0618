"""Attention with dropout of weights, against the formula with the same weights dropped."""

import pytest
import torch
from torch.nn import functional as F

from projects.cmt_aqr.transformer import MultiheadAttention
from projects.cmt_aqr.transformer.cpu_dropout_attention import cpu_dropout_attention, draw_kept

DROPOUT = 0.25  # steps of 1 / 65,536 hold it exactly
MASKS = {
    'no mask': None,
    'boolean mask': torch.arange(30).view(5, 6) % 4 > 0,
    'float mask': torch.linspace(-2, 3, 30).view(5, 6),
    'mask by sample': torch.arange(60).view(2, 1, 5, 6) % 3 > 0,
}


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    q = torch.randn(2, 3, 5, 4, dtype=torch.double, requires_grad=True)
    k = torch.randn(2, 3, 6, 4, dtype=torch.double, requires_grad=True)
    v = torch.randn(2, 3, 6, 4, dtype=torch.double, requires_grad=True)
    return q, k, v


def spelled_out(q, k, v, mask):
    logits = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if mask is not None:
        bool_mask = mask.dtype == torch.bool
        logits = logits.masked_fill(~mask, float('-inf')) if bool_mask else logits + mask
    kept, share = draw_kept(logits.shape, dropout=DROPOUT, device=q.device)
    return (logits.softmax(-1) * kept / share) @ v


@pytest.mark.parametrize('mask', MASKS.values(), ids=MASKS)
def test_equals_the_formula_with_its_gradients(inputs, mask):
    single = [x.float().detach().requires_grad_() for x in inputs]
    torch.manual_seed(1)
    out = cpu_dropout_attention(*single, dropout=DROPOUT, attn_mask=mask)
    torch.manual_seed(1)
    expected = spelled_out(*inputs, mask)
    torch.testing.assert_close(out, expected.float(), rtol=1e-5, atol=1e-6)

    weights = torch.randn_like(expected)
    grads = torch.autograd.grad(out, single, weights.float())
    for grad, wanted in zip(grads, torch.autograd.grad(expected, inputs, weights), strict=True):
        torch.testing.assert_close(grad, wanted.float(), rtol=1e-4, atol=1e-6)


def test_is_plain_attention_where_nothing_is_dropped(inputs):
    single = [x.float() for x in inputs]
    torch.testing.assert_close(
        cpu_dropout_attention(*single, dropout=0.0), F.scaled_dot_product_attention(*single)
    )


def test_a_query_that_without_any_key_gets_zeros_and_gives_no_gradient(inputs):
    single = [x.float().detach().requires_grad_() for x in inputs]
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[2] = False
    out = cpu_dropout_attention(*single, dropout=DROPOUT, attn_mask=mask)
    assert (out[:, :, 2] == 0).all()
    out.square().sum().backward()
    assert (single[0].grad[:, :, 2] == 0).all()
    assert all(x.grad.isfinite().all() for x in single)


def test_low_precision_comes_back_as_it_went_in(inputs):
    low = [x.to(torch.bfloat16).detach().requires_grad_() for x in inputs]
    torch.manual_seed(1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = cpu_dropout_attention(*low, dropout=DROPOUT)
    out.sum().backward()
    assert {out.dtype, *(x.grad.dtype for x in low)} == {torch.bfloat16}
    torch.manual_seed(1)
    expected = spelled_out(*(x.double() for x in low), mask=None)
    torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)


def test_keeps_a_byte_a_weight_for_the_backward_pass():
    q = torch.randn(1, 2, 64, 8, requires_grad=True)
    sizes = {}

    def measure(tensor):
        sizes[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    mask = torch.ones(64, 64, dtype=torch.bool)
    with torch.autograd.graph.saved_tensors_hooks(measure, lambda x: x):
        cpu_dropout_attention(q, q, q, dropout=DROPOUT, attn_mask=mask)
    of_heads, of_all = q.numel() * 4, 2 * 64 * 64  # q, k and v are one here; the output is another
    assert sum(sizes.values()) == 2 * of_heads + of_all + mask.numel() * 4


@pytest.mark.parametrize('dropout', [0.1, 0.5, 0.999])
def test_keeps_the_share_that_it_says(dropout):
    torch.manual_seed(0)
    kept, share = draw_kept((3, 331, 333), dropout=dropout, device=torch.device('cpu'))
    assert kept.shape == (3, 331, 333)
    assert share == pytest.approx(1 - dropout, abs=1 / 65536)
    deviation = (share * (1 - share) / kept.numel()) ** 0.5
    assert kept.double().mean().item() == pytest.approx(share, abs=5 * deviation)
    for lane in range(4):  # of the words of 64 bits
        part = kept.flatten()[lane::4].double().mean().item()
        assert part == pytest.approx(share, abs=10 * deviation)


def test_nothing_is_dropped_with_probability_zero_and_everything_with_one():
    device = torch.device('cpu')
    assert draw_kept((7, 5), dropout=0.0, device=device)[0].all()
    with pytest.raises(ValueError, match=r'dropout is 1\.0'):
        draw_kept((7, 5), dropout=1.0, device=device)


def test_a_layer_drops_in_training_only_anew_each_time_and_by_the_seed():
    layer = MultiheadAttention(16, num_heads=4, dropout=0.5)
    x = torch.randn(1, 5, 16)
    assert not torch.equal(layer(x, x, x), layer(x, x, x))
    torch.manual_seed(3)
    first = layer(x, x, x)
    torch.manual_seed(3)
    assert torch.equal(layer(x, x, x), first)
    layer.eval()
    assert torch.equal(layer(x, x, x), layer(x, x, x))


def test_a_mask_that_learns_gets_its_gradient():
    layer = MultiheadAttention(16, num_heads=4, dropout=0.5)
    x, mask = torch.randn(1, 5, 16), torch.zeros(5, 5, requires_grad=True)
    layer(x, x, x, attn_mask=mask).square().sum().backward()
    assert mask.grad.abs().sum() > 0
