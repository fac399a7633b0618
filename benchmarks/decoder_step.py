"""Forward and backward pass of a decoder in the sizes of a released model; needs torch alone.

Shapes: B batch (here 1), Q queries, K tokens, C channels, M token groups.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from projects.cmt_aqr.aqr import AQRWeightGenerator
from projects.cmt_aqr.doctor.decoder_inputs import RouterVariant, Size, random_windows
from projects.cmt_aqr.transformer import CmtTransformer

from .processes import PeakMemory
from .timing import Stopwatch, Times

NUM_QUERIES = 900
CHANNELS, NUM_HEADS = 256, 8


class RoutedSide(NamedTuple):
    """A decoder with routed cross-attention."""

    backend: str
    variant: RouterVariant = RouterVariant()
    router: bool = False
    """whether a router computes the weights, which is then timed; else they are given"""


class DecoderStep:
    """Inference, and forward and backward pass, of a decoder.

    The gradients of inputs, parameters and router weights are computed. Each step includes the
    routing request that a form makes of the weights.

    Args:
        size: sizes of the feature maps.
        routed: ``None`` is the decoder of CMT without a router.
        num_layers: number of decoder layers.
        device: device to compute on.
        dtype: float32, or the type of automatic mixed precision with parameters in float32.
    """

    def __init__(
        self,
        *,
        size: Size,
        routed: RoutedSide | None,
        num_layers: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._memory = PeakMemory(device)
        self.facts: dict[str, int] = {}
        """``inference_memory``: peak without gradients in bytes, after the first step"""
        torch.manual_seed(0)
        self._watch = Stopwatch(device)
        self._device, self._dtype = device, dtype
        self._decoder = CmtTransformer(
            CHANNELS,
            num_layers=num_layers,
            num_heads=NUM_HEADS,
            attention='auto' if routed is None else routed.backend,
        ).to(device)
        self._query_pos, self._tokens, self._token_pos = (
            torch.randn(1, n, CHANNELS, device=device, requires_grad=True)
            for n in (NUM_QUERIES, size.num_tokens, size.num_tokens)
        )
        self._form = self._router = None
        if routed is not None:
            groups = routed.variant.groups
            self._form = routed.variant.build(NUM_HEADS).to(device)
            self._layout = size.layout
            self._groups = self._layout.groups(groups, device)
            shape = (1, NUM_QUERIES, self._layout.num_groups(groups))
            self._weights = torch.empty(shape, device=device).uniform_(-1, 1).requires_grad_()
            self._windows = random_windows(size, device, num_queries=NUM_QUERIES)
            if routed.router:
                self._router = AQRWeightGenerator(CHANNELS, groups=groups).to(device)

    def __call__(self) -> Times:
        """Take a step.

        Returns:
            seconds of ``inference`` (forward without gradients), ``forward``, ``backward``, and
            ``training``, the sum of the last two. On a CPU also the processor time of each as
            ``cpu/...``.
        """
        self._watch.reset()
        with torch.no_grad(), self._watch.lap('inference'):
            self._forward()
        if not self.facts:
            self.facts['inference_memory'] = self._memory.read()
        with self._watch.lap('forward'):
            out = self._forward()
        with self._watch.lap('backward'):
            out.float().sum().backward()
        for leaf in (self._query_pos, self._tokens, self._token_pos):
            leaf.grad = None
        return self._watch.times(_with_sum)

    def _forward(self) -> Tensor:
        mixed = self._dtype != torch.float32
        with torch.autocast(self._device.type, dtype=self._dtype, enabled=mixed):
            routing = None
            if self._form is not None:
                routing = self._form(self._weigh(), groups=self._groups, windows=self._windows)
            return self._decoder(
                self._query_pos, tokens=self._tokens, token_pos=self._token_pos, routing=routing
            ).hidden

    def _weigh(self) -> Tensor:
        """(B, Q, M), router weights."""
        if self._router is None:
            return self._weights
        return self._router(
            self._query_pos,
            self._tokens + self._token_pos,
            self._tokens,
            layout=self._layout,
            windows=self._windows,
        )


def _with_sum(laps: Times) -> Times:
    return {**laps, 'training': laps['forward'] + laps['backward']}
