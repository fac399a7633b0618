"""What reaches the kernels: releases, layouts and types; the branch for CUDA on a CPU."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from cuda_attention import cuda_attention_on_cpu
from routings import (
    BATCH,
    CAMERAS,
    HEADS,
    QUERIES,
    SIZES,
    TOKENS,
    make_bias,
    make_gate,
    make_mix,
    run,
)

from projects.cmt_aqr.transformer import BiasRouting, CmtTransformer, TokenGroups, kernels
from projects.cmt_aqr.transformer.backends import (
    choose_backend,
    dense_attention,
    grouped_attention,
    window_attention,
)
from projects.cmt_aqr.transformer.backends.with_lse import attention_with_lse

HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, *HALF)


@pytest.fixture
def on_cuda(monkeypatch):
    with cuda_attention_on_cpu(monkeypatch) as calls:
        yield calls


@pytest.fixture
def other_torch(monkeypatch):
    """Pretend that torch is of another release."""

    def pretend(version, hip=None):
        known = SimpleNamespace(__version__=version, version=SimpleNamespace(hip=hip))
        monkeypatch.setattr(kernels, 'torch', known)
        kernels.why_not.cache_clear()

    yield pretend
    kernels.why_not.cache_clear()


# Which torch.


@pytest.mark.parametrize('version', ['2.8.0+cu129', '2.11.0+cu128', '2.13.0', torch.__version__])
def test_releases_the_project_runs_with(other_torch, version):
    other_torch(version)
    assert kernels.why_not() is None


@pytest.mark.parametrize('version', ['2.7.1', '2.14.0', '3.0.0a0+git1234'])
def test_another_release_is_named(other_torch, version):
    other_torch(version)
    reason = kernels.why_no_log_sum_exp(torch.device('cuda'))
    assert reason.startswith(f'torch {version} is not among the releases whose kernels are known')
    assert reason.endswith('2.8 to 2.13 for CPU and CUDA')
    q = torch.zeros(1, 1, 1, 8)
    with pytest.raises(RuntimeError, match=r"not among the releases .*; use attention='dense'"):
        attention_with_lse(q, q, q, scale=1.0)


def test_rocm_is_not_taken_for_cuda(other_torch):
    other_torch('2.8.0', hip='6.4')
    assert 'torch 2.8.0 for ROCm' in kernels.why_no_log_sum_exp(torch.device('cuda'))


@pytest.mark.parametrize(
    ('make_routing', 'backend'),
    [
        (make_bias, 'folded'),
        (lambda: make_bias(scope='both'), 'dense'),
        (make_gate, 'dense'),
        (make_mix, 'dense'),
    ],
)
def test_under_another_release_auto_calls_no_private_kernel(
    other_torch, monkeypatch, make_routing, backend
):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, logger: lines.append(line))
    kernels.log_once.cache_clear()
    other_torch('2.99.0')
    for _ in range(2):
        assert choose_backend(make_routing(), torch.device('cuda')) == backend
    (line,) = lines
    assert ('since torch 2.99.0 is not' in line) == (backend == 'dense')


def test_under_another_release_pairs_are_gathered(other_torch):
    rows, table = torch.randn(5, 3), torch.randn(7, 3)
    place = torch.tensor([6, 0, 2, 2], dtype=torch.int32)
    offsets = torch.tensor([0, 1, 1, 3, 4], dtype=torch.int32)
    bag = torch.tensor([0, 2, 2, 3], dtype=torch.int32)
    expected = kernels.pair_products(rows, table, place, offsets, bag)
    other_torch('2.99.0')
    torch.testing.assert_close(kernels.pair_products(rows, table, place, offsets, bag), expected)


# The branch for CUDA.


def plain(q, k, v, scale):
    logits = q @ k.transpose(-1, -2) * scale
    return logits.softmax(dim=-1) @ v, logits.logsumexp(dim=-1)


def half_step(dtype):
    """Relative error of a rounding."""
    return torch.finfo(dtype).eps


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('queries', [1, 5, 32, 40])
@pytest.mark.parametrize('widths', [(8, 8), (9, 8), (6, 11), (32, 32), (33, 32)])
def test_outputs_and_gradients(on_cuda, widths, queries, dtype):
    """Of outputs and log-sum-exps, in layouts as those of a decoder: heads beside each other."""
    sizes = (queries, widths[0]), (30, widths[0]), (30, widths[1])
    leaves = [torch.randn(2, n, 3, width).to(dtype).requires_grad_() for n, width in sizes]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    gradients = []
    for attention, inputs in ((attention_with_lse, leaves), (plain, exact)):
        out, lse = attention(*(x.transpose(1, 2) for x in inputs), scale=0.3)
        loss = out.double().sin().sum() + lse.double().cos().sum()
        gradients.append(torch.autograd.grad(loss, inputs))
    for ours, theirs in zip(*gradients, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert error < max(2 * half_step(dtype), 1e-5)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('upstream', ['out', 'lse'])
def test_gradient_of_either_alone(on_cuda, upstream, dtype):
    q, k, v = (torch.randn(2, 3, n, 8).to(dtype).requires_grad_() for n in (5, 30, 30))
    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    gradients = []
    for attention, inputs in ((attention_with_lse, (q, k, v)), (plain, exact)):
        out, lse = attention(*inputs, scale=0.3)
        loss = out.double().sin().sum() if upstream == 'out' else lse.double().sin().sum()
        gradients.append(torch.autograd.grad(loss, inputs, materialize_grads=True))
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours.double() - theirs).norm() <= 2 * half_step(dtype) * theirs.norm()


def test_expanded_gradients_are_spelled_out(on_cuda):
    """The gradient of a sum has strides of zero."""
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 30, 30))
    out, _ = attention_with_lse(q, k, v, scale=0.3)
    out.sum().backward()
    torch.testing.assert_close(v.grad.sum(), torch.tensor(2.0 * 3 * 5 * 8))


@contextmanager
def in_half(dtype):
    if dtype == torch.float32:
        yield
    else:
        with torch.autocast('cpu', dtype=dtype):
            yield


ROUTINGS = {
    'bias': make_bias,
    'bias per camera': lambda: make_bias('camera'),
    'gate': make_gate,
    'gate per camera': lambda: make_gate('camera'),
    'mix': make_mix,
    'windows': lambda: make_bias(scope='local'),
    'both per camera': lambda: make_bias('camera', scope='both'),
}


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('absent', [False, True])
@pytest.mark.parametrize('make_routing', ROUTINGS.values(), ids=ROUTINGS)
def test_back_ends_equal_dense(on_cuda, make_routing, absent, dtype):
    routing = make_routing()
    inputs = {
        name: by_heads(torch.randn(BATCH, n, HEADS, 8)).to(dtype)
        for name, n in (('q', QUERIES), ('k', TOKENS), ('v', TOKENS))
    }
    token_mask = None
    if absent:
        last = sum(SIZES[:-1])
        token_mask = torch.arange(TOKENS).expand(BATCH, -1) < torch.tensor([[TOKENS], [last]])
    windows = make_routing in (ROUTINGS['windows'], ROUTINGS['both per camera'])
    attention = window_attention if windows else grouped_attention
    with in_half(dtype):
        out, gradients = run(attention, inputs, routing, token_mask)
    exact = {name: x.double() for name, x in inputs.items()}
    expected_out, expected = run(dense_attention, exact, routing, token_mask)
    steps = 4 * half_step(dtype)
    torch.testing.assert_close(out.double(), expected_out, atol=max(steps, 1e-5), rtol=0)
    for name, gradient in gradients.items():
        error = (gradient.double() - expected[name]).norm() / expected[name].norm()
        assert error < max(2 * steps, 1e-4), name
    groups = len([size for size in routing.groups.sizes if size])
    assert [name for name, _ in on_cuda] == ['forward'] * groups + ['backward'] * groups
    used = torch.float32 if windows else dtype
    assert {args[0].dtype for _, args in on_cuda} == {used}


def by_heads(x):
    """(B, N, H, F) -> (B, H, N, F) as the projections of a decoder give it, without a copy."""
    return x.transpose(1, 2)


@pytest.mark.parametrize('absent', [False, True])
def test_keys_and_values_are_copied_only_to_widen_them(on_cuda, absent):
    """Of a decoder whose heads are a multiple of 8 channels wide, the forward pass copies none."""
    q, k, v = (torch.randn(BATCH, n, HEADS, 8).transpose(1, 2) for n in (QUERIES, TOKENS, TOKENS))
    token_mask = torch.ones(BATCH, TOKENS, dtype=torch.bool) if absent else None
    grouped_attention(q, k, v, routing=make_gate('camera'), token_mask=token_mask)
    assert len(on_cuda) == 1 + CAMERAS
    for _, (own_q, own_k, own_v, *_) in on_cuda:
        assert own_v.untyped_storage().data_ptr() == v.untyped_storage().data_ptr()
        widened = own_k.untyped_storage().data_ptr() != k.untyped_storage().data_ptr()
        assert widened == absent
        assert own_q.shape[-1] == own_k.shape[-1] == (16 if absent else 8)


@pytest.mark.parametrize('dtype', HALF)
def test_rows_off_the_grid_are_copied(on_cuda, dtype):
    """A slice that starts in the middle of a row is not aligned, though its strides are."""
    wide = torch.randn(1, 2, 9, 16).to(dtype)
    q = wide[..., 4:12]
    out, _ = attention_with_lse(q, q, q, scale=0.3)
    torch.testing.assert_close(out.float(), plain(*[q.float()] * 3, 0.3)[0], atol=2e-2, rtol=0)


@pytest.mark.parametrize('dtype', DTYPES)
def test_a_whole_decoder(on_cuda, dtype):
    """Two layers under autocast, all parameters trained, against float64 and the dense form."""
    routing = make_bias('camera')
    query_pos, tokens, token_pos = (torch.randn(BATCH, n, 32) for n in (QUERIES, TOKENS, TOKENS))
    results = []
    for attention, precision in (('grouped', dtype), ('dense', torch.float64)):
        torch.manual_seed(0)
        decoder = CmtTransformer(
            32, num_layers=2, num_heads=HEADS, feedforward_channels=32, attention=attention
        ).eval()
        wide = torch.float64 if attention == 'dense' else torch.float32
        decoder.to(wide)
        inputs = (x.to(wide) for x in (query_pos, tokens, token_pos))
        with in_half(precision if attention == 'grouped' else torch.float32):
            q, t, p = inputs
            out = decoder(q, tokens=t, token_pos=p, routing=routing).hidden
        (out.double() * out.detach().double().cos()).sum().backward()
        results.append([p.grad.double() for p in decoder.parameters() if p.grad is not None])
    ours, theirs = (torch.cat([g.flatten() for g in result]) for result in results)
    assert (ours - theirs).norm() < max(8 * half_step(dtype), 1e-4) * theirs.norm()


def test_layouts_on_meta_are_those_of_the_stand_in(on_cuda):
    """PyTorch's own description of the kernel agrees with the stand-in about what it returns."""
    shapes = ((2, 3, 5, 16), (2, 3, 30, 16), (2, 3, 30, 8))
    inputs = [torch.randn(shape).half() for shape in shapes]
    name = '_scaled_dot_product_efficient_attention'
    results = []
    for device in ('cpu', 'meta'):
        q, k, v = (x.to(device) for x in inputs)
        out, lse, seed, offset = getattr(torch.ops.aten, name)(q, k, v, None, True, scale=0.3)
        grads = getattr(torch.ops.aten, f'{name}_backward')(
            out, q, k, v, None, out, lse, seed, offset, 0.0, [True, True, True, False], scale=0.3
        )  # fmt: skip
        results.append([(x.shape, x.stride(), x.dtype) for x in (out, lse, *grads[:3])])
    assert results[0] == results[1]


# Kernels behind the public function.


def cuda_kernel(q, k, v, mask):
    """What ``sdp_utils.cpp`` takes on a GPU of compute capability 8.0 or newer, without cuDNN."""
    half = q.dtype in HALF
    adjacent = all(x.stride(-1) == 1 for x in (q, k, v)) and (mask is None or mask.stride(-1) == 1)
    if half and mask is None and adjacent and q.shape[-1] == v.shape[-1] <= 256:
        return 'flash'
    step = 8 if half else 4
    if adjacent and q.shape[-1] % step == 0 and v.shape[-1] % step == 0:
        return 'efficient'
    return 'math'


@pytest.fixture
def attended(monkeypatch):
    """Every call of the public function: its inputs, mask, and whether cuDNN was allowed."""
    calls = []
    public = F.scaled_dot_product_attention

    def note(q, k, v, *, attn_mask=None, dropout_p=0.0, scale=None):
        calls.append((q, k, v, attn_mask, torch.backends.cuda.cudnn_sdp_enabled()))
        return public(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, scale=scale)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', note)
    return calls


def released_decoder(dtype, *, routed, absent, denoising):
    """One layer at the size of r50 on the device ``meta``, and its inputs."""
    queries, sizes = 900 + 200 * denoising, (16384, *[1000] * 6)
    tokens = sum(sizes)
    decoder = CmtTransformer(256, num_layers=1, attention='auto' if routed is None else routed)
    decoder = decoder.to('meta', dtype)
    inputs = [torch.empty(2, n, 256, dtype=dtype, device='meta') for n in (queries, tokens, tokens)]
    options = {'tokens': inputs[1], 'token_pos': inputs[2]}
    if absent:
        options['token_mask'] = torch.ones(2, tokens, dtype=torch.bool, device='meta')
    if denoising:
        options['self_attn_mask'] = torch.ones(queries, queries, dtype=torch.bool, device='meta')
    if routed:
        weights = torch.zeros(2, queries, 7, device='meta')
        form = BiasRouting(num_heads=8).to('meta')
        options['routing'] = form(weights, groups=TokenGroups.of(sizes, 'meta'))
    return decoder, inputs[0], options


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, ('flash', 'flash')),
        ({'denoising': True}, ('efficient', 'flash')),
        ({'absent': True}, ('flash', 'efficient')),
        ({'routed': 'folded'}, ('flash', 'flash')),
        ({'routed': 'folded', 'absent': True}, ('flash', 'flash')),
    ],
)
def test_no_attention_falls_to_the_formula(attended, options, expected, dtype):
    """Self-attention and cross-attention at the released size; float32 has no flash kernel."""
    options = {'routed': None, 'absent': False, 'denoising': False, **options}
    decoder, query_pos, inputs = released_decoder(dtype, **options)
    decoder.eval()(query_pos, **inputs)
    chosen = tuple(cuda_kernel(*call[:4]) for call in attended)
    if dtype == torch.float32:
        expected = ('efficient', 'efficient')
    assert chosen == expected
    for q, k, _, mask, _ in attended:
        if mask is not None:  # broadcast by the kernel, not by us
            assert mask.dtype == torch.bool
            assert mask.numel() <= max(len(q) * k.shape[2], q.shape[2] ** 2)
            assert mask.dim() in (2, 4)


def test_cudnn_is_left_out_of_every_call(attended):
    """Whatever the global setting is, which is left as it was."""
    options = {'routed': None, 'absent': True, 'denoising': True}
    decoder, query_pos, inputs = released_decoder(torch.float32, **options)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        for enabled in (True, False):
            torch.backends.cuda.enable_cudnn_sdp(enabled)
            decoder(query_pos, **inputs)  # in training mode: with dropout
            assert torch.backends.cuda.cudnn_sdp_enabled() == enabled
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)
    assert len(attended) == 4
    assert not any(cudnn for *_, cudnn in attended)
