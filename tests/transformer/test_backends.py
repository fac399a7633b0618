"""Every back end against the dense reference: outputs and gradients."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from projects.cmt_aqr.transformer import (
    AttentionBias,
    AttentionGate,
    AttentionMix,
    WindowBias,
    backends,
)
from projects.cmt_aqr.transformer.backends import (
    choose_backend,
    dense_attention,
    folded_attention,
    grouped_attention,
    window_attention,
)

BATCH, HEADS, QUERIES, WIDTH = 2, 4, 7, 8
SIDE, CAMERAS = 6, 3  # the BEV map is 6 x 6, each of the images 4 x 6
SIZES = (SIDE * SIDE, *[4 * SIDE] * CAMERAS)
TOKENS = sum(SIZES)
GROUPS = {
    'modality': (torch.arange(TOKENS) >= SIZES[0]).long(),
    'camera': torch.arange(1 + CAMERAS).repeat_interleave(torch.tensor(SIZES)),
}


def make_inputs(spread=1.0):
    """Queries, keys and values, by name; ``spread`` is the standard deviation of the logits."""
    q = torch.randn(BATCH, HEADS, QUERIES, WIDTH) * spread
    k, v = torch.randn(2, BATCH, HEADS, TOKENS, WIDTH)
    return {'q': q, 'k': k, 'v': v}


def make_weights(grouping='modality'):
    """The router's, of -1 and 1 too."""
    weights = 2 * torch.rand(BATCH, QUERIES, int(GROUPS[grouping].max()) + 1) - 1
    weights[0, 0], weights[0, 1] = -1.0, 1.0
    return weights


def make_window(size, rows, sees, strength, *, first=0, gaussian=False):
    """A window for each (sample, query) in ``sees``, at random places, cut by the map's border.

    Cells outside of the map stand for its first token and add nothing, as the router has it.
    """
    sample, query = torch.tensor(sees).T
    place = torch.stack(
        [torch.randint(-1, rows, sample.shape), torch.randint(-1, SIDE, sample.shape)], dim=-1
    )
    steps = torch.cartesian_prod(torch.arange(size), torch.arange(size)) - (size - 1) // 2
    cells = place[:, None] + steps
    inside = ((cells >= 0) & (cells < torch.tensor([rows, SIDE]))).all(dim=-1)
    token = first + (cells[..., 0] * SIDE + cells[..., 1]) * inside
    shape = torch.exp(-steps.square().sum(-1) / 4) if gaussian else torch.ones(len(steps))
    return WindowBias(sample, query, token, strength[sample, query, None] * shape * inside)


def make_windows(weights, **options):
    """On the BEV map for all queries, which are seen by none, one or two cameras."""
    everyone = [(sample, query) for sample in range(BATCH) for query in range(QUERIES)]
    windows = [make_window(3, SIDE, everyone, 5 * weights[..., 0], **options)]
    for camera, least in enumerate((1, 2)):
        sees = [(sample, query) for sample, query in everyone if query % 3 >= least]
        strength = 5 * weights[..., min(1 + camera, weights.shape[-1] - 1)]
        first = SIZES[0] + camera * SIZES[1]
        windows.append(make_window(2, 4, sees, strength, first=first, **options))
    return tuple(windows)


def make_bias(grouping='modality', *, everywhere=True, windows=False, gaussian=False):
    """As the router makes it with all scales at 5; with both scopes it is beyond the limit."""
    weights = make_weights(grouping)
    return AttentionBias(
        5 * weights * everywhere,
        GROUPS[grouping],
        make_windows(weights, gaussian=gaussian) if windows else (),
        5.0,
    )


def make_gate(grouping='modality'):
    return AttentionGate(1 + make_weights(grouping), GROUPS[grouping])


def make_mix(grouping='modality'):
    return AttentionMix(
        5 * make_weights(grouping), GROUPS[grouping], 1 + 3 * torch.rand(HEADS), 5.0
    )


def leaves_of(routing):
    """What of a routing can be trained, by name."""
    if isinstance(routing, AttentionGate):
        return {'gains': routing.gains}
    if isinstance(routing, AttentionMix):
        return {'bias': routing.bias, 'temperature': routing.temperature}
    added = {f'added{i}': window.added for i, window in enumerate(routing.windows)}
    return {'everywhere': routing.everywhere, **added}


def with_leaves(routing, leaves):
    if not isinstance(routing, AttentionBias):
        return routing._replace(**leaves)
    # Outside of the map nothing is added, whatever is learned.
    windows = [
        window._replace(added=leaves[f'added{i}'] * (window.added != 0))
        for i, window in enumerate(routing.windows)
    ]
    return replace(routing, everywhere=leaves['everywhere'], windows=tuple(windows))


def run(attention, inputs, routing, present=None, train='all'):
    """The output, and the gradient of all that is trained, by name."""
    inputs = {name: x.detach().clone() for name, x in inputs.items()}
    leaves = {name: x.detach().clone() for name, x in leaves_of(routing).items()}
    trained = {**(inputs if train != 'routing' else {}), **(leaves if train != 'inputs' else {})}
    for x in trained.values():
        x.requires_grad_()
    out = attention(**inputs, routing=with_leaves(routing, leaves), present=present)
    upstream = torch.linspace(-9, 9, out.numel()).sin().view_as(out)
    gradients = torch.autograd.grad((out * upstream).sum(), list(trained.values()))
    gradients = dict(zip(trained, gradients, strict=True))
    added = [gradients.pop(name).flatten() for name in trained if name.startswith('added')]
    return out.detach(), {**gradients, **({'added': torch.cat(added)} if added else {})}


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
    windows = isinstance(routing, AttentionBias) and routing.windows
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
    'box': lambda: make_bias(everywhere=False, windows=True),
    'gaussian': lambda: make_bias(everywhere=False, windows=True, gaussian=True),
    'box per camera': lambda: make_bias('camera', everywhere=False, windows=True),
    'both': lambda: make_bias(windows=True),
    'both per camera': lambda: make_bias('camera', windows=True, gaussian=True),
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
@pytest.mark.parametrize('train', ['all', 'routing', 'inputs'])
def test_equals_dense(attention, make_routing, spread, train):
    inputs, routing = make_inputs(spread), make_routing()
    result = run(attention, inputs, routing, train=train)
    reference = run(dense_attention, inputs, routing, train=train)
    assert_equal(result, reference, **tolerance(routing, spread))


@every_back_end
@pytest.mark.parametrize('spread', [1.0, 10.0])
def test_tokens_that_are_not_there_have_no_part(attention, make_routing, spread):
    """The second sample lacks two cameras."""
    inputs, routing = make_inputs(spread), make_routing()
    last = sum(SIZES[:2])
    present = torch.arange(TOKENS).expand(BATCH, -1) < torch.tensor([[TOKENS], [last]])
    result = run(attention, inputs, routing, present)
    reference = run(dense_attention, inputs, routing, present)
    assert_equal(result, reference, **tolerance(routing, spread))
    assert not result[1]['k'][1, :, last:].any()
    assert not result[1]['v'][1, :, last:].any()


@pytest.mark.parametrize(
    'attention', [dense_attention, folded_attention, grouped_attention, window_attention]
)
@pytest.mark.parametrize('grouping', GROUPS)
def test_at_their_neutral_value_all_forms_are_plain_attention(attention, grouping):
    inputs = make_inputs(spread=5.0)
    plain = F.scaled_dot_product_attention(*inputs.values())
    zeros, groups = torch.zeros_like(make_weights(grouping)), GROUPS[grouping]
    routings = [AttentionBias(zeros, groups, (), 5.0)]
    if attention is not folded_attention:
        routings.append(AttentionGate(zeros + 1, groups))
        routings.append(AttentionMix(zeros, groups, torch.ones(HEADS), 5.0))
    if attention in (dense_attention, window_attention):
        routings.append(AttentionBias(zeros, groups, make_windows(zeros), 5.0))
    for routing in routings:
        out = attention(**inputs, routing=routing, present=None)
        torch.testing.assert_close(out, plain, atol=2e-6, rtol=0)


@pytest.mark.parametrize('mass', [0.5, 0.999])
@pytest.mark.parametrize('strength', [-5.0, 5.0])
def test_a_window_with_nearly_all_of_the_attention(mass, strength):
    """By hand: the odds of the window against all else change by e^bias."""
    keys = torch.zeros(1, 1, 100, 1)
    inside = 20
    odds = mass / (1 - mass)
    keys[..., :inside, :] = torch.tensor(odds * (100 - inside) / inside).log()
    values = (torch.arange(100) < inside).float()[None, None, :, None]
    token = torch.arange(inside)[None]
    zero = torch.zeros(1, dtype=torch.long)
    window = WindowBias(zero, zero, token, torch.full((1, inside), strength))
    bias = AttentionBias(torch.zeros(1, 1, 2), (torch.arange(100) >= 50).long(), (window,), 5.0)
    out = window_attention(torch.ones(1, 1, 1, 1), keys, values, routing=bias, present=None)
    changed = odds * torch.tensor(strength).exp().item()
    tolerance = 1e-5 if strength > 0 else 5e-4
    assert out.item() == pytest.approx(changed / (1 + changed), abs=tolerance)


@torch.no_grad()
def test_under_mixed_precision_the_correction_is_float32():
    """A suppressed window is right to the rounding of bfloat16 inputs, not to e^5 times that."""
    inputs = {name: x.bfloat16() for name, x in make_inputs(spread=3.0).items()}
    bias = make_bias(everywhere=False, windows=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = window_attention(**inputs, routing=bias, present=None)
    assert out.dtype == torch.bfloat16
    exact = {name: x.double() for name, x in inputs.items()}
    expected = dense_attention(**exact, routing=bias, present=None)
    torch.testing.assert_close(out.double(), expected, atol=2e-3, rtol=2**-8)


@torch.no_grad()
@pytest.mark.parametrize('make_routing', ROUTINGS.values(), ids=ROUTINGS)
def test_under_mixed_precision_the_output_keeps_its_type(make_routing):
    inputs, routing = make_inputs(), make_routing()
    half = {name: x.bfloat16() for name, x in inputs.items()}
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = grouped_attention(**half, routing=routing, present=None)
    assert out.dtype == torch.bfloat16
    expected = dense_attention(**inputs, routing=routing, present=None)
    torch.testing.assert_close(out.float(), expected, atol=0.05, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize('attention', [folded_attention, grouped_attention])
def test_absence_is_finite_in_half_precision(attention):
    """With 64 channels a head, the penalty before scaling is beyond the range of float16."""
    q, k, v = (torch.randn(1, 1, n, 64, dtype=torch.half) for n in (3, 6, 6))
    bias = AttentionBias(torch.zeros(1, 3, 2), torch.tensor([0, 0, 0, 1, 1, 1]), (), 5.0)
    present = torch.tensor([[True] * 4 + [False] * 2])
    out = attention(q, k, v, routing=bias, present=present)
    expected = F.scaled_dot_product_attention(q, k[:, :, :4], v[:, :, :4])
    torch.testing.assert_close(out, expected, atol=5e-3, rtol=0)


def test_layers_that_are_asked_the_same_share_the_pairs():
    routing = make_bias(windows=True)
    q, k, v = (x.requires_grad_() for x in make_inputs().values())
    first = window_attention(q, k, v, routing=routing, present=None)
    second = window_attention(first, k, v, routing=routing, present=None)
    waiting, seen = [second.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(before for before, _ in node.next_functions)
    kept = [node.pairs for node in seen if hasattr(node, 'pairs')]
    assert len(kept) == 6  # a product and two sums in each layer
    assert all(pairs is routing.in_windows.pairs for pairs in kept)


@pytest.mark.parametrize('attention', [folded_attention, grouped_attention])
def test_windows_are_not_dropped(attention):
    with pytest.raises(ValueError, match="cannot honour a bias in windows; use 'window'"):
        attention(**make_inputs(), routing=make_bias(windows=True), present=None)


@pytest.mark.parametrize('make_routing', [make_gate, make_mix])
def test_folded_refuses_what_is_no_bias(make_routing):
    with pytest.raises(ValueError, match=r"'folded' cannot honour an \w+; use 'grouped'"):
        folded_attention(**make_inputs(), routing=make_routing(), present=None)


@pytest.mark.parametrize('attention', [grouped_attention, window_attention])
@pytest.mark.parametrize('make_routing', [make_gate, make_mix])
def test_groups_that_lie_scattered_are_refused(attention, make_routing):
    routing = make_routing()._replace(groups=torch.arange(TOKENS) % 2)
    with pytest.raises(ValueError, match='tokens in the ascending order of their groups'):
        attention(**make_inputs(), routing=routing, present=None)


def test_folded_takes_groups_that_lie_scattered():
    inputs, bias = make_inputs(), replace(make_bias(), groups=torch.arange(TOKENS) % 2)
    assert_equal(run(folded_attention, inputs, bias), run(dense_attention, inputs, bias))


def test_auto_chooses_by_device_and_scope():
    cpu = torch.device('cpu')
    assert choose_backend(make_bias(), cpu) == 'grouped'
    assert choose_backend(make_mix(), cpu) == 'grouped'
    assert choose_backend(make_bias(), torch.device('cuda')) == 'folded'
    assert choose_backend(make_gate(), torch.device('cuda')) == 'grouped'
    assert choose_backend(make_bias(windows=True), cpu) == 'window'
    assert choose_backend(make_bias(windows=True), torch.device('xpu')) == 'dense'


def test_auto_logs_its_choice_once(monkeypatch):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, logger: lines.append(line))
    backends._log_once.cache_clear()
    for _ in range(3):
        choose_backend(make_gate(), torch.device('cpu'))
    assert lines == ["cross-attention with AttentionGate by group on cpu: back end 'grouped'"]
