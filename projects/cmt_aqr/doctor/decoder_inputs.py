"""Token layouts of the released models and random windows; imports with torch alone.

Shapes: B batch, V cameras, Q queries, K tokens.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ..aqr import TokenLayout, Windows, bev_windows, camera_windows
from ..geometry import Projection
from ..transformer import BiasRouting, GateRouting, MixRouting, RoutingForm

NUM_CAMERAS = 6
BEV_WINDOW = 5
# Shares of queries seen by no camera, one camera and two cameras on a real nuScenes keyframe.
SEEN_BY = (0.025, 0.85, 0.125)


class Size(NamedTuple):
    """Sizes of a model's feature maps."""

    bev: tuple[int, int]
    """height and width of the BEV map, cells"""
    image: tuple[int, int]
    """height and width of the feature map of one camera, cells"""
    camera_window: int
    """side length of a query's window in a camera, cells"""

    @property
    def layout(self) -> TokenLayout:
        """Layout of all tokens."""
        return TokenLayout(self.bev, self.image, NUM_CAMERAS)

    @property
    def num_tokens(self) -> int:
        """K."""
        layout = self.layout
        return layout.lidar_tokens + NUM_CAMERAS * layout.tokens_per_camera


SMALL = Size(bev=(12, 10), image=(4, 6), camera_window=3)
SIZES = {
    'r50': Size(bev=(128, 128), image=(20, 50), camera_window=8),
    'vov': Size(bev=(180, 180), image=(40, 100), camera_window=15),
    'vov_x4': Size(bev=(360, 360), image=(80, 200), camera_window=15),
}
"""The released models, and one with four times the tokens of VoVNet's."""
FORMS = {'bias': BiasRouting, 'gate': GateRouting, 'mix': MixRouting}


class RouterVariant(NamedTuple):
    """A routing form and the groups of tokens that it weighs."""

    form: str = 'bias'
    """a key of :data:`FORMS`"""
    scope: str = 'global'
    """scope of a bias"""
    groups: str = 'modality'

    def build(self, num_heads: int) -> RoutingForm:
        """The routing form."""
        options = {'scope': self.scope} if self.form == 'bias' else {}
        return FORMS[self.form](num_heads=num_heads, **options)


def random_windows(
    size: Size,
    device: torch.device,
    *,
    num_queries: int,
    camera_mask: Tensor | None = None,
) -> list[Windows]:
    """Windows around random reference points, which see as many cameras as on a real keyframe.

    They are drawn on the CPU, so that a seed gives the same windows on every device. The
    ``camera_mask`` (B, V), bool, is True where a sample has a camera; ``None`` is one sample with
    all cameras.

    Returns:
        the windows in the BEV map, and those in the cameras.
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
    # A query seen by two cameras is seen by neighbours.
    shape = (batch_size, 1, num_queries)
    number = torch.multinomial(torch.tensor(SEEN_BY), batch_size * num_queries, replacement=True)
    turn = torch.arange(NUM_CAMERAS)[:, None] - torch.randint(NUM_CAMERAS, shape)
    visible = turn % NUM_CAMERAS < number.view(shape)
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
