"""Check of each back end and form of cross-attention against dense attention in float64.

Inputs are rounded to the type of the back end first, and the reference gets the rounded values, so
that errors come from the back end alone.

Shapes: B batch, H heads, Q queries, K tokens, D channels of a head, M token groups.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..aqr import Windows
from ..transformer import RoutingForm, TokenGroups
from ..transformer.backends import BACKENDS, dense_attention
from .decoder_inputs import NUM_CAMERAS, SIZES, SMALL, RouterVariant, Size, random_windows
from .result import Comparison, Result, name_of, norm_error, rounding, row_error

ALL_SIZES = {'small': SMALL, **SIZES}
HEADS, WIDTH = 8, 32
LIMIT = 5.0
# Standard deviation of the logits, with which a few tokens get most of a query's attention.
SPREAD = 3.0
FORMS = {
    'bias': (RouterVariant(), ('dense', 'grouped', 'folded')),
    'bias per camera': (RouterVariant(groups='camera'), ('dense', 'grouped', 'folded')),
    'bias in windows': (RouterVariant(scope='local'), ('dense', 'window')),
    'both scopes': (RouterVariant(scope='both', groups='camera'), ('dense', 'window')),
    'gate': (RouterVariant('gate'), ('dense', 'grouped')),
    'mix': (RouterVariant('mix', groups='camera'), ('dense', 'grouped')),
}
"""Router variants by name, and the back ends that implement each; the others refuse it."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Inputs of routed cross-attention."""

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
        """The problem in another type; router weights have at least float32."""
        precise = torch.promote_types(dtype, torch.float32)
        inputs = {
            name: x.to(precise if name == 'weights' else dtype) for name, x in self.inputs.items()
        }
        form = copy.deepcopy(self.form).to(precise)
        return replace(self, inputs=inputs, grad=self.grad.to(dtype), form=form)

    def solve(self, attend: Callable[..., Tensor]) -> dict[str, Tensor]:
        """Output of a back end and gradients of all inputs, by name."""
        inputs = {name: x.clone().requires_grad_() for name, x in self.inputs.items()}
        routing = self.form(inputs['weights'], groups=self.groups, windows=self.windows)
        q, k, v = (inputs[name] for name in 'qkv')
        out = attend(q, k, v, routing=routing, token_mask=self.token_mask)
        grads = torch.autograd.grad(out, list(inputs.values()), self.grad)
        names = (f'gradient of {name}' for name in inputs)
        return {'output': out.detach(), **dict(zip(names, grads, strict=True))}


def check_attention(device: torch.device, *, size: str, dtype: torch.dtype) -> Result:
    """Check all forms and back ends at one size in one type."""
    needs_support = device.type == 'cuda' and dtype == torch.bfloat16
    if needs_support and torch.cuda.get_device_capability(device) < (8, 0):
        return Result(what='this GPU has no bfloat16', skipped=True)
    tokens, num_queries = ALL_SIZES[size], _num_queries(ALL_SIZES[size], device)
    error = row_error if dtype == torch.float32 else norm_error
    # The case with absent tokens is checked at the small size only.
    cases = {'': False, ' with absent tokens': True} if size == 'small' else {'': False}
    comparisons = []
    for name, (variant, backends) in FORMS.items():
        for case, absent in cases.items():
            problem = make_problem(
                tokens, variant, num_queries=num_queries, absent=absent, device=device
            ).to(dtype)
            expected = problem.to(torch.float64).solve(dense_attention)
            for backend in backends:
                found = problem.solve(BACKENDS[backend])
                comparisons += [
                    Comparison(
                        f'{name}{case}, {backend}, {part}',
                        error(found[part], reference),
                        allowed(dtype, variant.scope, tokens.num_tokens),
                    )
                    for part, reference in expected.items()
                ]
    what = f'{name_of(dtype)}, {num_queries} queries, {tokens.num_tokens} tokens'
    return Result(what=what, comparisons=comparisons)


def allowed(dtype: torch.dtype, scope: str, num_tokens: int) -> float:
    """Largest allowed error of an output or gradient, from the rounding ``eps`` of the type.

    In half precision, kernels sum in float32 and round their results. These roundings are
    independent, so the error of the whole tensor (:func:`.result.norm_error`) is about one eps at
    any size; the limit is 4.

    In float32 the error is that of the worst row (:func:`.result.row_error`). A logit s has an
    error of about s eps, which is also the relative error of its exponential: 20 eps for the
    largest logits here. A sum over K tokens adds about sqrt(K) eps. In a window suppressed by e^-5
    the result is a difference of numbers up to e^5 times as large. A gradient is a difference of
    two such sums, for which the limit has three more bits.
    """
    eps = rounding(dtype)
    if dtype != torch.float32:
        return 4 * eps
    cancelled = math.exp(LIMIT) if scope != 'global' else 0
    return 8 * eps * (2 * 20 + math.sqrt(num_tokens) + cancelled)


def make_problem(
    size: Size, variant: RouterVariant, *, num_queries: int, absent: bool, device: torch.device
) -> Problem:
    """Random inputs, the same on every device.

    With ``absent`` there is a second sample, without two of the cameras.
    """
    random = torch.Generator().manual_seed(0)
    layout, batch = size.layout, 1 + absent
    cameras = torch.ones(batch, NUM_CAMERAS, dtype=torch.bool)
    cameras[1:, -2:] = False
    token_mask = layout.token_mask(cameras)
    shapes = [(batch, HEADS, n, WIDTH) for n in (num_queries, *[size.num_tokens] * 2)]
    q, k, v = (torch.randn(shape, generator=random) for shape in shapes)
    weights = torch.rand(batch, num_queries, layout.num_groups(variant.groups), generator=random)
    inputs = {'q': q * SPREAD, 'k': k, 'v': v, 'weights': 2 * weights - 1}
    form = variant.build(HEADS)
    for name, parameter in form.named_parameters():
        if name == 'temperature':
            torch.nn.init.uniform_(parameter, 1, 3, generator=random)
        else:
            torch.nn.init.constant_(parameter, LIMIT)
    return Problem(
        inputs={name: x.to(device) for name, x in inputs.items()},
        grad=torch.randn(shapes[0], generator=random).to(device),
        form=form.to(device),
        groups=layout.groups(variant.groups, device),
        windows=random_windows(size, device, num_queries=num_queries, camera_mask=cameras),
        token_mask=token_mask.to(device) if absent else None,
    )


def _num_queries(size: Size, device: torch.device) -> int:
    """Q: on a GPU at most 900, limited by the memory of the reference; on a CPU by its time."""
    if device.type == 'cpu':
        return 32 if size.num_tokens < 30_000 else 12
    numbers = 16 * HEADS * size.num_tokens  # values for each query at the reference's peak
    return min(900, torch.cuda.mem_get_info(device)[0] // (8 * numbers))
