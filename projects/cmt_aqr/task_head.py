"""The regression and classification branches, one set for each decoder layer.

Shapes: B batch, Q queries, C channels, L decoder layers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

CLASS_BRANCH = 'cls_logits'
FINAL_KERNELS = (1, 3)


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

    With kernels of 1 a query is answered from itself alone. With kernels of 3, as in the released
    model of LiDAR alone, both convolutions also take in the queries before and after it in their
    order; in training the denoising queries come first.

    Args:
        in_channels: C.
        branches: output channels of each branch by name.
        num_layers: L.
        hidden_channels: width of each branch.
        final_kernel: queries that each convolution spans, 1 or 3.
        class_bias: initial bias of the class logits; -2.19 gives a score of 0.1.

    Raises:
        ValueError: another ``final_kernel``.
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
        """(L, B, Q, C) -> for each branch (L, B, Q, channels)."""
        layers = hidden.shape[0]
        x = hidden.permute(1, 0, 3, 2).flatten(1, 2)
        return {
            name: getattr(self, name)(x).unflatten(1, (layers, -1)).permute(1, 0, 3, 2)
            for name in self.branches
        }
