"""Ways to compute attention as a router asks for it; all but ``dense`` without a Q x K tensor.

Every back end has the signature of :func:`~.dense.dense_attention`, honours all that it is asked
for or raises, and is tested against it, outputs and gradients.
"""

import functools
import logging

import torch

from ..attention_bias import AttentionBias, Routing
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
    """The back end of the least cost that honours what is asked; the choice is logged once."""
    biased = isinstance(routing, AttentionBias)
    windows = biased and len(routing.windows) > 0
    backend = 'window' if windows else 'grouped'
    if biased and not windows and device.type == 'cuda':
        backend = 'folded'  # one kernel is started in place of one for each group
    if device.type not in ('cpu', 'cuda'):  # the only ones whose log-sum-exp is at hand
        backend = 'dense'
    scope = 'with windows' if windows else 'by group'
    name = type(routing).__name__
    _log_once(f'cross-attention with {name} {scope} on {device.type}: back end {backend!r}')
    return backend


@functools.cache
def _log_once(message: str) -> None:
    try:
        from mmengine.logging import print_log
    except ImportError:  # on a machine with torch alone
        logging.getLogger(__name__).info(message)
    else:
        print_log(message, logger='current')
