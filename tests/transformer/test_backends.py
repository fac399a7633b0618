"""Every back end against the dense reference: outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F
from routings import (
    BATCH,
    GROUPS,
    HEADS,
    SIZES,
    TOKENS,
    make_bias,
    make_gate,
    make_inputs,
    make_mix,
    make_weights,
    make_windows,
    run,
)

from projects.cmt_aqr.aqr import Windows
from projects.cmt_aqr.transformer import (
    BiasRouting,
    GateRouting,
    MixRouting,
    TokenGroups,
    kernels,
)
from projects.cmt_aqr.transformer.backends import (
    choose_backend,
    dense_attention,
    folded_attention,
    grouped_attention,
    window_attention,
)


def assert_equal(result, reference, forward=1e-5, gradient=1e-4):
    """Outputs absolutely; each gradient relative to its own size."""
    torch.testing.assert_close(result[0], reference[0], atol=forward, rtol=0)
    assert result[1].keys() == reference[1].keys()
    for name, grad in result[1].items():
        expected = reference[1][name]
        error = (grad - expected).norm() / expected.norm().clamp(min=1e-10)
        assert error <= gradient, f'{name}: {error:.2g}'


def tolerance(routing, spread):
    """With wide logits some suppressed windows hold all of a query's attention."""
    windows = routing.pair_bias is not None
    return {'forward': 5e-4, 'gradient': 1e-3} if windows and spread > 1 else {}


ROUTINGS = {
    'global': make_bias,
    'per camera': lambda: make_bias('camera'),
    'gate': make_gate,
    'gate per camera': lambda: make_gate('camera'),
    'mix': make_mix,
    'mix per camera': lambda: make_mix('camera'),
}
WINDOWED = {
    'local': lambda: make_bias(scope='local'),
    'local per camera': lambda: make_bias('camera', scope='local'),
    'both': lambda: make_bias(scope='both'),
    'both per camera': lambda: make_bias('camera', scope='both'),
}
CASES = [
    *((folded_attention, name, ROUTINGS[name]) for name in ('global', 'per camera')),
    *((grouped_attention, name, make) for name, make in ROUTINGS.items()),
    *((window_attention, name, make) for name, make in {**ROUTINGS, **WINDOWED}.items()),
]
every_back_end = pytest.mark.parametrize(
    ('attention', 'make_routing'),
    [(attention, make) for attention, _, make in CASES],
    ids=[f'{attention.__name__}-{name}' for attention, name, _ in CASES],
)


@every_back_end
@pytest.mark.parametrize('spread', [1.0, 10.0])
@pytest.mark.parametrize('absent', [False, True])
@pytest.mark.parametrize('train', ['all', 'routing', 'inputs'])
def test_equals_dense(attention, make_routing, spread, absent, train):
    """Where tokens are absent, the second sample lacks two cameras."""
    inputs, routing = make_inputs(spread), make_routing()
    last = sum(SIZES[:2]) if absent else TOKENS
    token_mask = torch.arange(TOKENS).expand(BATCH, -1) < torch.tensor([[TOKENS], [last]])
    token_mask = token_mask if absent else None
    result = run(attention, inputs, routing, token_mask, train=train)
    reference = run(dense_attention, inputs, routing, token_mask, train=train)
    assert_equal(result, reference, **tolerance(routing, spread))
    if train == 'all':
        assert not result[1]['k'][1, :, last:].any()
        assert not result[1]['v'][1, :, last:].any()


@pytest.mark.parametrize(
    'attention', [dense_attention, folded_attention, grouped_attention, window_attention]
)
@pytest.mark.parametrize('grouping', GROUPS)
def test_at_their_neutral_value_all_forms_are_plain_attention(attention, grouping):
    inputs = make_inputs(spread=5.0)
    plain = F.scaled_dot_product_attention(*inputs.values())
    forms = [BiasRouting(num_heads=HEADS)]
    if attention is not folded_attention:
        forms += [GateRouting(num_heads=HEADS), MixRouting(num_heads=HEADS)]
    if attention in (dense_attention, window_attention):
        forms.append(BiasRouting(num_heads=HEADS, scope='both'))
    zeros, groups = torch.zeros_like(make_weights(grouping)), GROUPS[grouping]
    for form in forms:
        routing = form(zeros, groups=groups, windows=make_windows())
        out = attention(**inputs, routing=routing, token_mask=None)
        torch.testing.assert_close(out, plain, atol=2e-6, rtol=0)


@pytest.mark.parametrize('share', [0.5, 0.999])
@pytest.mark.parametrize('weight', [-1.0, 1.0])
def test_a_window_with_nearly_all_of_the_attention(share, weight):
    """By hand: the odds of the window against all else change by e^bias."""
    keys = torch.zeros(1, 1, 100, 1)
    inside = 20
    odds = share / (1 - share)
    keys[..., :inside, :] = torch.tensor(odds * (100 - inside) / inside).log()
    values = (torch.arange(100) < inside).float()[None, None, :, None]
    token = torch.arange(inside)[None]
    zero = torch.zeros(1, dtype=torch.long)
    on_map = torch.ones_like(token, dtype=torch.bool)
    window = Windows(zero, zero, zero, token, on_map, torch.zeros(1, inside, 2))
    form = BiasRouting(num_heads=1, scope='local', initial_scale=5.0)
    weights = torch.tensor([[[weight, 0.0]]])
    bias = form(weights, groups=TokenGroups.of([50, 50]), windows=[window])
    out = window_attention(torch.ones(1, 1, 1, 1), keys, values, routing=bias, token_mask=None)
    changed = odds * torch.tensor(5 * weight).exp().item()
    tolerance = 1e-5 if weight > 0 else 5e-4
    assert out.item() == pytest.approx(changed / (1 + changed), abs=tolerance)


@torch.no_grad()
def test_under_mixed_precision_the_correction_is_float32():
    """A suppressed window is right to the rounding of bfloat16 inputs, not to e^5 times that."""
    inputs = {name: x.bfloat16() for name, x in make_inputs(spread=3.0).items()}
    bias = make_bias(scope='local')
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = window_attention(**inputs, routing=bias, token_mask=None)
    assert out.dtype == torch.bfloat16
    exact = {name: x.double() for name, x in inputs.items()}
    expected = dense_attention(**exact, routing=bias, token_mask=None)
    torch.testing.assert_close(out.double(), expected, atol=2e-3, rtol=2**-8)


@torch.no_grad()
@pytest.mark.parametrize('make_routing', ROUTINGS.values(), ids=ROUTINGS)
def test_under_mixed_precision_the_output_keeps_its_type(make_routing):
    inputs, routing = make_inputs(), make_routing()
    half = {name: x.bfloat16() for name, x in inputs.items()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = grouped_attention(**half, routing=routing, token_mask=None)
    assert out.dtype == torch.bfloat16
    expected = dense_attention(**inputs, routing=routing, token_mask=None)
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('attention', [folded_attention, grouped_attention])
def test_absence_is_finite_in_half_precision(attention):
    """With 64 channels a head, the penalty before scaling is beyond the range of float16."""
    q, k, v = (torch.randn(1, 1, n, 64, dtype=torch.half) for n in (3, 6, 6))
    form = BiasRouting(num_heads=1)
    bias = form(torch.zeros(1, 3, 2), groups=TokenGroups.of([3, 3]))
    token_mask = torch.tensor([[True] * 4 + [False] * 2])
    out = attention(q, k, v, routing=bias, token_mask=token_mask)
    expected = F.scaled_dot_product_attention(q, k[:, :, :4], v[:, :, :4])
    torch.testing.assert_close(out, expected, atol=5e-3, rtol=0)


def test_layers_that_are_asked_the_same_share_the_pairs():
    routing = make_bias(scope='both')
    q, k, v = (x.requires_grad_() for x in make_inputs().values())
    first = window_attention(q, k, v, routing=routing, token_mask=None)
    second = window_attention(first, k, v, routing=routing, token_mask=None)
    waiting, seen = [second.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(before for before, _ in node.next_functions)
    kept = [node.pairs for node in seen if hasattr(node, 'pairs')]
    assert len(kept) == 6  # a product and two sums in each layer
    assert all(pairs is routing.pair_bias.pairs for pairs in kept)


@pytest.mark.parametrize('attention', [folded_attention, grouped_attention])
def test_windows_are_not_dropped(attention):
    with pytest.raises(ValueError, match="cannot compute a bias in windows; use 'window'"):
        attention(**make_inputs(), routing=make_bias(scope='both'), token_mask=None)


@pytest.mark.parametrize('make_routing', [make_gate, make_mix])
def test_folded_refuses_what_is_no_bias(make_routing):
    with pytest.raises(ValueError, match=r"'folded' cannot compute a \w+Routing; use 'grouped'"):
        folded_attention(**make_inputs(), routing=make_routing(), token_mask=None)


def test_auto_chooses_by_device_and_scope():
    cpu = torch.device('cpu')
    assert choose_backend(make_bias(), cpu) == 'grouped'
    assert choose_backend(make_mix(), cpu) == 'grouped'
    assert choose_backend(make_bias(), torch.device('cuda')) == 'folded'
    assert choose_backend(make_gate(), torch.device('cuda')) == 'grouped'
    assert choose_backend(make_bias(scope='both'), cpu) == 'window'
    assert choose_backend(make_bias(scope='both'), torch.device('xpu')) == 'dense'


def test_auto_logs_its_choice_once(monkeypatch):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, logger: lines.append(line))
    kernels.log_once.cache_clear()
    for _ in range(3):
        choose_backend(make_gate(), torch.device('cpu'))
    assert lines == ["cross-attention with GateRouting by group on cpu: back end 'grouped'"]
