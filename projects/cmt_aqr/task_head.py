"""Regression and classification branches, with separate weights for each decoder layer.

Shapes: B batch, Q queries, C channels, L decoder layers.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASS_BRANCH = 'cls_logits'
FINAL_KERNELS = (1, 3)


class GroupLayerNorm(nn.Module):
    """Layer norm over each group of channels separately, with separate weights.

    ``torch.nn.GroupNorm`` would also average over the last dimension and thereby mix the queries.
    """

    def __init__(self, channels: int, *, groups: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(B, groups * C, Q) -> (B, groups * C, Q)."""
        grouped = x.unflatten(1, (self.groups, -1))
        variance, mean = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
        normed = (grouped - mean) * (variance + self.eps).rsqrt()
        return normed.flatten(1, 2) * self.weight[:, None] + self.bias[:, None]


class SeparateTaskHead(nn.Module):
    """Branches of one task, computed for all decoder layers at once by grouped 1D convolutions.

    With a kernel size of 1, the output of a query depends on that query alone. With 3, as in the
    released LiDAR-only model, both convolutions also read its neighbours in query order; in
    training, denoising queries come first.

    Args:
        in_channels: C.
        branches: output channels of each branch by name.
        num_layers: L.
        hidden_channels: hidden channels of each branch.
        final_kernel: kernel size of both convolutions, 1 or 3.
        class_bias: initial bias of the class logits; -2.19 gives a score of 0.1.

    Raises:
        ValueError: ``final_kernel`` is neither 1 nor 3.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        branches: Mapping[str, int],
        num_layers: int,
        hidden_channels: int = 64,
        final_kernel: int = 1,
        class_bias: float = -2.19,
    ) -> None:
        super().__init__()
        if final_kernel not in FINAL_KERNELS:
            raise ValueError(f'final_kernel is {final_kernel}; it must be one of {FINAL_KERNELS}')
        self.branches = tuple(branches)
        size = dict(kernel_size=final_kernel, padding=final_kernel // 2, groups=num_layers)
        for name, channels in branches.items():
            branch = nn.Sequential(
                nn.Conv1d(
                    num_layers * in_channels, num_layers * hidden_channels, bias=False, **size
                ),
                GroupLayerNorm(num_layers * hidden_channels, groups=num_layers),
                nn.ReLU(inplace=True),
                nn.Conv1d(num_layers * hidden_channels, num_layers * channels, **size),
            )
            for conv in (branch[0], branch[3]):
                nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
            nn.init.constant_(branch[3].bias, class_bias if name == CLASS_BRANCH else 0.0)
            self.add_module(name, branch)

    def forward(self, hidden: Tensor) -> dict[str, Tensor]:
        """(L, B, Q, C) -> (L, B, Q, channels) for each branch."""
        layers = hidden.shape[0]
        x = hidden.permute(1, 0, 3, 2).flatten(1, 2)
        return {
            name: getattr(self, name)(x).unflatten(1, (layers, -1)).permute(1, 0, 3, 2)
            for name in self.branches
        }

    def last_layer(self, hidden: Tensor) -> dict[str, Tensor]:
        """Outputs of the last decoder layer alone: (B, Q, C) -> (1, B, Q, channels)."""
        x = hidden.transpose(1, 2)
        return {
            name: self._last_layer(getattr(self, name), x).transpose(1, 2)[None]
            for name in self.branches
        }

    def _last_layer(self, branch: nn.Sequential, x: Tensor) -> Tensor:
        """Output (B, channels, Q) of the last layer's weights of a branch for (B, C, Q)."""
        conv, norm, _, final = branch
        layers, padding = norm.groups, conv.padding
        own = {name: parameter.chunk(layers)[-1] for name, parameter in branch.named_parameters()}
        x = F.conv1d(x, own['0.weight'], padding=padding)
        x = F.layer_norm(
            x.transpose(1, 2), x.shape[1:2], own['1.weight'], own['1.bias'], norm.eps
        ).transpose(1, 2)
        return F.conv1d(x.relu(), own['3.weight'], own['3.bias'], padding=final.padding)
