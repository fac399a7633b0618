"""A decoder in the sizes of a model, timed by phase.

Shapes: B batch (here 1), V cameras, Q queries, K tokens, C channels, M token groups.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..aqr import AQRWeightGenerator, TokenLayout, Windows, bev_windows, camera_windows
from ..geometry import Projection
from ..transformer import BiasRouting, CmtTransformer, GateRouting, MixRouting, RoutingForm
from .memory import PeakMemory
from .timing import Stopwatch, Times

NUM_QUERIES = 900
CHANNELS, NUM_HEADS = 256, 8
NUM_CAMERAS = 6
BEV_WINDOW = 5
# Share of queries that no camera, one camera and two cameras see on the real frame.
SEEN_BY = (0.025, 0.85, 0.125)


class Size(NamedTuple):
    """The tokens of a model."""

    bev: tuple[int, int]
    """height and width of the BEV map, cells"""
    image: tuple[int, int]
    """height and width of the map of one camera, cells"""
    camera_window: int
    """cells along each side of a query's window in a camera"""

    @property
    def layout(self) -> TokenLayout:
        """Of all tokens."""
        return TokenLayout(self.bev, self.image, NUM_CAMERAS)

    @property
    def num_tokens(self) -> int:
        """K."""
        layout = self.layout
        return layout.lidar_tokens + NUM_CAMERAS * layout.tokens_per_camera


FORMS = {'bias': BiasRouting, 'gate': GateRouting, 'mix': MixRouting}


class Ask(NamedTuple):
    """A routing form, and the back end that computes it."""

    backend: str
    form: str = 'bias'
    """one of :data:`FORMS`"""
    scope: str = 'global'
    """of a bias"""
    groups: str = 'modality'
    router: bool = False
    """whether a router makes the weights, and its work counts, or they are given"""

    def build(self, num_heads: int) -> RoutingForm:
        """The routing form."""
        options = {'scope': self.scope} if self.form == 'bias' else {}
        return FORMS[self.form](num_heads=num_heads, **options)


class DecoderStep:
    """The decoder, forward and backward.

    All gradients are computed: of its inputs, its parameters and the router's weights. The routing
    request is timed; the router's own work only if ``ask`` has a router.

    Args:
        size: of the tokens.
        ask: ``None`` is the decoder of plain CMT.
        num_layers: of the decoder.
        device: to work on.
        dtype: float32, or the type of automatic mixed precision; parameters stay in float32.
    """

    def __init__(
        self,
        *,
        size: Size,
        ask: Ask | None,
        num_layers: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._memory = PeakMemory(device)
        self.inference_memory: int | None = None
        """bytes needed at most without gradients, once the step was taken"""
        torch.manual_seed(0)
        self._watch = Stopwatch(device)
        self._device, self._dtype = device, dtype
        self._decoder = CmtTransformer(
            CHANNELS,
            num_layers=num_layers,
            num_heads=NUM_HEADS,
            attention='auto' if ask is None else ask.backend,
        ).to(device)
        self._query_pos, self._tokens, self._token_pos = (
            torch.randn(1, n, CHANNELS, device=device, requires_grad=True)
            for n in (NUM_QUERIES, size.num_tokens, size.num_tokens)
        )
        self._form = self._router = None
        if ask is not None:
            self._form = ask.build(NUM_HEADS).to(device)
            self._layout = size.layout
            self._groups = self._layout.groups(ask.groups, device)
            shape = (1, NUM_QUERIES, self._layout.num_groups(ask.groups))
            self._weights = torch.empty(shape, device=device).uniform_(-1, 1).requires_grad_()
            self._windows = random_windows(size, device)
            if ask.router:
                self._router = AQRWeightGenerator(CHANNELS, groups=ask.groups).to(device)

    def __call__(self) -> Times:
        """Take a step.

        Returns:
            seconds of ``inference`` (forward without gradients), ``forward``, ``backward``, and
            ``training``, the sum of the last two. On a CPU all of these also as ``cpu/...``, in
            processor time of all threads.
        """
        self._watch.reset()
        with torch.no_grad(), self._watch.lap('inference'):
            self._forward()
        if self.inference_memory is None:
            self.inference_memory = self._memory.read()
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
            )

    def _weigh(self) -> Tensor:
        """(B, Q, M), weights of the sensors for each query."""
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


def random_windows(
    size: Size,
    device: torch.device,
    *,
    num_queries: int = NUM_QUERIES,
    camera_mask: Tensor | None = None,
) -> list[Windows]:
    """Windows around random places, seen by as many cameras as those of the real frame are.

    They are drawn on the CPU, so that one seed gives the same windows on every device.

    Args:
        size: of the tokens.
        device: to put the windows on.
        num_queries: Q.
        camera_mask: (B, V), bool: cameras that a sample has; ``None`` for one sample with all.
    """
    if camera_mask is None:
        camera_mask = torch.ones(1, NUM_CAMERAS, dtype=torch.bool)
    batch_size = len(camera_mask)
    bev = bev_windows(
        torch.rand(batch_size, num_queries, 3).to(device),
        size.layout,
        size=BEV_WINDOW,
        point_cloud_range=(0.0, 0.0, 0.0, 1.0, 1.0, 1.0),
        cell_size=(1 / size.bev[1], 1 / size.bev[0]),
    )
    height, width = size.image
    cells = torch.rand(batch_size, NUM_CAMERAS, num_queries, 2) * torch.tensor([width, height])
    visible = torch.stack([_random_visibility(num_queries) for _ in range(batch_size)])
    projection = Projection(
        torch.cat([cells, torch.ones_like(cells[..., :1])], dim=-1).to(device),
        torch.ones(batch_size, NUM_CAMERAS, num_queries, device=device),
        visible.to(device),
    )
    cameras = camera_windows(
        projection,
        camera_mask.to(device),
        size.layout,
        size=size.camera_window,
        image_shape=size.image,
    )
    return [bev, cameras]


def _random_visibility(num_queries: int) -> Tensor:
    """(V, Q), bool."""
    number = torch.multinomial(torch.tensor(SEEN_BY), num_queries, replacement=True)
    first = torch.randint(NUM_CAMERAS, (num_queries,))
    turn = (torch.arange(NUM_CAMERAS)[:, None] - first) % NUM_CAMERAS
    return turn < number  # neighbouring cameras
