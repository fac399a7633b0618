"""Every back end and form of cross-attention against the dense one in float64.

What a back end gets is rounded to its type first, and the reference computes with the rounded
numbers: what remains is the rounding of the back end itself.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, M token groups.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..aqr import Windows
from ..benchmarks.attention import SIZES
from ..benchmarks.attention_step import NUM_CAMERAS, Ask, Size, random_windows
from ..transformer import RoutingForm, TokenGroups
from ..transformer.backends import BACKENDS, dense_attention
from .errors import norm_error, rounding, row_error
from .result import Comparison, Result

ALL_SIZES = {'small': Size(bev=(12, 10), image=(4, 6), camera_window=3), **SIZES}
HEADS, WIDTH = 8, 32
LIMIT = 5.0
# Standard deviation of the logits: a few tokens hold most of a query's attention.
SPREAD = 3.0
FORMS = {
    'bias': (Ask('', 'bias'), ('dense', 'grouped', 'folded')),
    'bias per camera': (Ask('', 'bias', groups='camera'), ('dense', 'grouped', 'folded')),
    'bias in windows': (Ask('', 'bias', 'local'), ('dense', 'window')),
    'both scopes': (Ask('', 'bias', 'both', 'camera'), ('dense', 'window')),
    'gate': (Ask('', 'gate'), ('dense', 'grouped')),
    'mix': (Ask('', 'mix', groups='camera'), ('dense', 'grouped')),
}
"""Routing forms by name, each with its back ends; the others refuse it or pass it on."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Inputs of attention, and a routing form."""

    inputs: dict[str, Tensor]
    """``q`` (B, H, Q, D), ``k``, ``v`` (B, H, K, D), ``weights`` (B, Q, M)"""
    grad: Tensor
    """(B, H, Q, D), gradient of the output"""
    form: RoutingForm
    groups: TokenGroups
    windows: list[Windows]
    token_mask: Tensor | None
    """(B, K), bool"""

    @torch.no_grad()
    def to(self, dtype: torch.dtype) -> 'Problem':
        """The same in another type; weights stay in float32 where the type has half of its bits."""
        kept = dtype if dtype == torch.float64 else torch.float32
        inputs = {
            name: x.to(kept if name == 'weights' else dtype) for name, x in self.inputs.items()
        }
        return Problem(
            inputs=inputs,
            grad=self.grad.to(dtype),
            form=copy.deepcopy(self.form).to(kept),
            groups=self.groups,
            windows=self.windows,
            token_mask=self.token_mask,
        )

    def solve(self, attend: Callable[..., Tensor]) -> dict[str, Tensor]:
        """The output of a back end, and the gradients of all inputs, by name."""
        inputs = {name: x.clone().requires_grad_() for name, x in self.inputs.items()}
        routing = self.form(inputs['weights'], groups=self.groups, windows=self.windows)
        q, k, v = (inputs[name] for name in 'qkv')
        out = attend(q, k, v, routing=routing, token_mask=self.token_mask)
        grads = torch.autograd.grad(out, list(inputs.values()), self.grad)
        names = (f'gradient of {name}' for name in inputs)
        return {'output': out.detach(), **dict(zip(names, grads, strict=True))}


def check_attention(device: torch.device, *, size: str, dtype: torch.dtype) -> Result:
    """All forms and back ends at one size, in one type."""
    if device.type == 'cuda' and dtype == torch.bfloat16 and not _has_bfloat16(device):
        return Result(what='this GPU has no bfloat16', skipped=True)
    tokens, num_queries = ALL_SIZES[size], _num_queries(ALL_SIZES[size], device)
    error = row_error if dtype == torch.float32 else norm_error
    comparisons = []
    for form, (ask, backends) in FORMS.items():
        for case, absent in _cases(size):
            problem = make_problem(
                tokens, ask, num_queries=num_queries, absent=absent, device=device
            ).to(dtype)
            expected = problem.to(torch.float64).solve(dense_attention)
            for backend in backends:
                found = problem.solve(BACKENDS[backend])
                comparisons += [
                    Comparison(
                        f'{form}{case}, {backend}, {part}',
                        error(found[part], reference),
                        allowed(dtype, ask.scope, tokens.num_tokens),
                    )
                    for part, reference in expected.items()
                ]
    what = (
        f'{dtype}'.removeprefix('torch.') + f', {num_queries} queries, {tokens.num_tokens} tokens'
    )
    return Result(what=what, comparisons=comparisons)


def allowed(dtype: torch.dtype, scope: str, num_tokens: int) -> float:
    """Largest allowed error of an output or gradient, from the rounding ``eps`` of the type.

    In half precision kernels sum in float32 and round what they store. These roundings are
    independent, so the error of the whole tensor (:func:`.errors.norm_error`) is about one eps
    whatever its size; 4 are allowed.

    In float32 every row counts (:func:`.errors.row_error`). A logit s is off by about s eps, and
    so is its exponential, relatively: S eps with S = 20 for the largest logits here. A sum over K
    tokens adds about sqrt(K) eps. Where a window is suppressed by e^-5, what is left is a
    difference of numbers up to e^5 times as large. A gradient is a difference of two such sums,
    for which three more bits are allowed.
    """
    eps = rounding(dtype)
    if dtype != torch.float32:
        return 4 * eps
    cancelled = math.exp(LIMIT) if scope != 'global' else 0
    return 8 * eps * (2 * 20 + math.sqrt(num_tokens) + cancelled)


def make_problem(
    size: Size, ask: Ask, *, num_queries: int, absent: bool, device: torch.device
) -> Problem:
    """Random inputs, the same on every device.

    Args:
        size: of the tokens.
        ask: its form, scope and groups.
        num_queries: Q.
        absent: whether the second of two samples lacks two cameras; else there is one sample.
        device: to put them on.
    """
    random = torch.Generator().manual_seed(0)
    layout, batch = size.layout, 1 + absent
    cameras = torch.ones(batch, NUM_CAMERAS, dtype=torch.bool)
    cameras[1:, -2:] = False
    token_mask = layout.token_mask(cameras)
    shapes = [(batch, HEADS, n, WIDTH) for n in (num_queries, *[size.num_tokens] * 2)]
    q, k, v = (torch.randn(shape, generator=random) for shape in shapes)
    weights = torch.rand(batch, num_queries, layout.num_groups(ask.groups), generator=random)
    inputs = {'q': q * SPREAD, 'k': k, 'v': v, 'weights': 2 * weights - 1}
    form = ask.build(HEADS)
    for name, parameter in form.named_parameters():
        if name == 'temperature':
            torch.nn.init.uniform_(parameter, 1, 3, generator=random)
        else:
            torch.nn.init.constant_(parameter, LIMIT)
    return Problem(
        inputs={name: x.to(device) for name, x in inputs.items()},
        grad=torch.randn(shapes[0], generator=random).to(device),
        form=form.to(device),
        groups=layout.groups(ask.groups, device),
        windows=random_windows(size, device, num_queries=num_queries, camera_mask=cameras),
        token_mask=token_mask.to(device) if absent else None,
    )


def _cases(size: str) -> Iterator[tuple[str, bool]]:
    """Absent tokens are tried at small size alone."""
    yield '', False
    if size == 'small':
        yield ' with absent tokens', True


def _num_queries(size: Size, device: torch.device) -> int:
    """At most 900: as many as the reference has memory for, on a CPU as its time allows."""
    if device.type == 'cpu':
        return 32 if size.num_tokens < 30_000 else 12
    numbers = 16 * HEADS * size.num_tokens  # of each query, in the reference at its peak
    return min(900, torch.cuda.mem_get_info(device)[0] // (8 * numbers))


def _has_bfloat16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)
