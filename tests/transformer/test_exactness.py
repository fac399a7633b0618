"""Random routing requests: fast back ends equal the dense one, without any (Q, K) tensor."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from projects.cmt_aqr.aqr import Windows
from projects.cmt_aqr.transformer import BiasRouting, GateRouting, MixRouting, TokenGroups
from projects.cmt_aqr.transformer.backends import BACKENDS, choose_backend, dense_attention


def upstream_of(out):
    """A gradient of the output."""
    return torch.linspace(-9, 9, out.numel()).sin().view_as(out)


class Case:
    """A routing request of drawn size and form, filled with numbers of a drawn seed."""

    def __init__(self, *, form, cells, batch, heads, queries, sizes, absent, spread, seed):
        random = torch.Generator().manual_seed(seed)
        tokens = sum(sizes)
        groups = TokenGroups.of(sizes)
        shape = (batch, queries, len(sizes))
        weights = (2 * torch.rand(shape, generator=random) - 1).requires_grad_()
        q, k, v = (
            torch.randn(batch, heads, n, 8, generator=random) for n in (queries, tokens, tokens)
        )
        self.token_mask = None
        if absent:  # the last group of the last sample; another one is present
            self.token_mask = torch.ones(batch, tokens, dtype=torch.bool)
            self.token_mask[-1] = groups.index < len(sizes) - 1
        if form == 'gate':
            module = GateRouting(num_heads=heads)
        elif form == 'mix':
            module = MixRouting(num_heads=heads, initial_scale=5.0)
            torch.nn.init.uniform_(module.temperature, 1, 5, generator=random)
        else:
            module = BiasRouting(num_heads=heads, scope=form, initial_scale=5.0)
        windows = [self._window(shape, tokens, cells, random)]
        self.routing = module(weights, groups=groups, windows=windows)
        self.leaves = {'q': q.mul_(spread), 'k': k, 'v': v, 'weights': weights}
        for leaf in (q, k, v):
            leaf.requires_grad_()
        self.leaves |= dict(module.named_parameters())

    @staticmethod
    def _window(shape, tokens, cells, random):
        """For some queries, tokens anywhere, each once; some of them outside of the map."""
        sample, query = torch.where(torch.rand(shape[:2], generator=random) < 0.7)
        token = torch.rand(len(sample), tokens, generator=random).argsort(dim=1)[:, :cells]
        inside = torch.rand(token.shape, generator=random) < 0.8
        group = torch.randint(0, shape[2], sample.shape, generator=random)
        return Windows(sample, query, group, token, inside, torch.zeros(*token.shape, 2))

    def run(self, attention):
        """Output and gradients by name."""
        out = attention(
            *(self.leaves[name] for name in 'qkv'), routing=self.routing, token_mask=self.token_mask
        )
        loss = (out * upstream_of(out)).sum()
        gradients = torch.autograd.grad(
            loss, list(self.leaves.values()), allow_unused=True, retain_graph=True
        )
        return out.detach(), dict(zip(self.leaves, gradients, strict=True))


cases = st.builds(
    Case,
    form=st.sampled_from(['global', 'local', 'both', 'gate', 'mix']),
    cells=st.integers(1, 4),
    batch=st.integers(1, 3),
    heads=st.integers(1, 4),
    queries=st.integers(1, 12),
    sizes=st.lists(st.integers(1, 30), min_size=2, max_size=7),
    absent=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 10.0]),
    seed=st.integers(0, 2**32 - 1),
)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(case=cases)
def test_every_case_equals_dense(case):
    backend = choose_backend(case.routing, torch.device('cpu'))
    assert backend != 'dense'
    out, gradients = case.run(BACKENDS[backend])
    expected_out, expected = case.run(dense_attention)
    suppressed = backend == 'window' and (case.routing.pair_bias.difference < 0).any()
    forward, relative = (5e-4, 1e-3) if suppressed else (1e-5, 1e-4)
    torch.testing.assert_close(out, expected_out, atol=forward, rtol=0)
    for name, gradient in gradients.items():
        # Where a gradient vanishes, rounding is as large as the terms that cancel.
        size = expected[name].norm().clamp(min=0.5 * upstream_of(out).norm())
        assert (gradient - expected[name]).norm() <= relative * size, name


class LargestOutput(TorchDispatchMode):
    """Notes how many numbers the largest tensor has that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.numel())
        return out


def make_case(form, *, queries, sizes, absent=False):
    """A case of a given size."""
    return Case(
        form=form,
        cells=9,
        batch=1,
        heads=2,
        queries=queries,
        sizes=sizes,
        absent=absent,
        spread=1.0,
        seed=0,
    )


every_form = pytest.mark.parametrize('form', ['global', 'both', 'gate', 'mix'])


@every_form
@pytest.mark.parametrize('dense', [False, True])
def test_no_back_end_but_dense_holds_a_number_for_every_pair(form, dense):
    queries, sizes = 300, [400, 200]
    case = make_case(form, queries=queries, sizes=sizes, absent=True)
    backend = 'dense' if dense else choose_backend(case.routing, torch.device('cpu'))
    with LargestOutput() as largest:
        case.run(BACKENDS[backend])
    assert (largest.numbers >= queries * sum(sizes)) == dense
    if not dense:
        assert largest.numbers < 2 * 16 * sum(sizes)  # both heads, and less than twice 8 channels


@every_form
def test_what_is_kept_for_the_backward_pass_grows_with_queries_plus_tokens(form):
    def kept(factor):
        case = make_case(form, queries=100 * factor, sizes=[400 * factor, 200 * factor])
        backend = choose_backend(case.routing, torch.device('cpu'))
        storages = {}

        def keep(x):
            storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
            case.run(BACKENDS[backend])
        return sum(storages.values())

    assert kept(4) < 4.1 * kept(1)
