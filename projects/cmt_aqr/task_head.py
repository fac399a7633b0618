"""The regression and classification branches, one set for each decoder layer.

Shapes: B batch, Q queries, C channels, L decoder layers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CLASS_BRANCH = 'cls_logits'


class GroupLayerNorm(nn.Module):
    """Layer norm over each group of channels apart, with weights of their own.

    ``torch.nn.GroupNorm`` would mix the queries, for it also averages over the last dimension.
    """

    def __init__(self, channels: int, *, groups: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, groups * C, Q) -> the same shape."""
        grouped = x.unflatten(1, (self.groups, -1))
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        normed = (grouped - mean) * (variance + self.eps).rsqrt()
        return normed.flatten(1, 2) * self.weight[:, None] + self.bias[:, None]


class SeparateTaskHead(nn.Module):
    """Branches of one task; all decoder layers run at once, as groups of 1D convolutions.

    Args:
        in_channels: C.
        branches: output channels of each branch by name.
        num_layers: L.
        hidden_channels: width of each branch.
        class_bias: initial bias of the class logits; -2.19 gives a score of 0.1.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        branches: Mapping[str, int],
        num_layers: int,
        hidden_channels: int = 64,
        class_bias: float = -2.19,
    ) -> None:
        super().__init__()
        self.branches = tuple(branches)
        for name, channels in branches.items():
            branch = nn.Sequential(
                nn.Conv1d(
                    num_layers * in_channels,
                    num_layers * hidden_channels,
                    kernel_size=1,
                    groups=num_layers,
                    bias=False,
                ),
                GroupLayerNorm(num_layers * hidden_channels, groups=num_layers),
                nn.ReLU(inplace=True),
                nn.Conv1d(
                    num_layers * hidden_channels,
                    num_layers * channels,
                    kernel_size=1,
                    groups=num_layers,
                ),
            )
            for conv in (branch[0], branch[3]):
                nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
            nn.init.constant_(branch[3].bias, class_bias if name == CLASS_BRANCH else 0.0)
            self.add_module(name, branch)

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """(L, B, Q, C) -> for each branch (L, B, Q, channels)."""
        layers = hidden.shape[0]
        x = hidden.permute(1, 0, 3, 2).flatten(1, 2)
        return {
            name: getattr(self, name)(x).unflatten(1, (layers, -1)).permute(1, 0, 3, 2)
            for name in self.branches
        }
