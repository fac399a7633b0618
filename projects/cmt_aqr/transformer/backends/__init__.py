"""Back ends of routed cross-attention; all except ``dense`` work without a (Q, K) tensor.

Every back end has the signature of :func:`~.dense.dense_attention`, computes the whole request or
raises, and is tested against it in outputs and gradients.
"""

import torch

from ..kernels import log_once, why_no_log_sum_exp
from ..routing import Routing
from .dense import dense_attention
from .folded import folded_attention
from .grouped import grouped_attention
from .window import window_attention

BACKENDS = {
    'dense': dense_attention,
    'grouped': grouped_attention,
    'folded': folded_attention,
    'window': window_attention,
}
HALF_PRECISION = ('grouped', 'folded')
"""The back ends that keep their accuracy in half precision: sums and softmax are the kernel's."""

__all__ = [
    'BACKENDS',
    'HALF_PRECISION',
    'choose_backend',
    'dense_attention',
    'folded_attention',
    'grouped_attention',
    'window_attention',
]


def choose_backend(routing: Routing, device: torch.device) -> str:
    """The cheapest back end that can compute a routing on a device; logs each choice once."""
    windows = routing.pair_bias is not None
    foldable = routing.group_bias is not None and not windows
    backend = 'window' if windows else 'grouped'
    if foldable and device.type == 'cuda':
        backend = 'folded'  # starts one kernel instead of one for each group
    reason = None if backend == 'folded' else why_no_log_sum_exp(device)
    if reason:  # these call no private kernel
        backend = 'folded' if foldable else 'dense'
    scope = 'with windows' if windows else 'by group'
    name = type(routing.form).__name__
    because = f', since {reason}' if reason else ''
    log_once(f'cross-attention with {name} {scope} on {device.type}: back end {backend!r}{because}')
    return backend
