"""Sparse convolutions against dense convolution in float64."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import norm_error, rounding, row_error
from .result import Comparison, Result

GRID = (11, 24, 24)
CHANNELS_IN, CHANNELS_OUT = 16, 32


def check_sparse(device: torch.device, *, strided: bool, dtype: torch.dtype) -> Result:
    """Check the outputs in training and evaluation mode, and the gradients in training mode.

    Args:
        device: device to compute on.
        strided: strided or submanifold convolution.
        dtype: type of features and kernel; spconv computes in half precision on CUDA only.
    """
    from spconv.pytorch import SparseConv3d, SparseConvTensor, SubMConv3d

    torch.manual_seed(0)
    kind, stride = (SparseConv3d, 2) if strided else (SubMConv3d, 1)
    layer = kind(CHANNELS_IN, CHANNELS_OUT, 3, stride=stride, padding=1, bias=False)
    layer = layer.to(device, dtype)
    indices = torch.stack([torch.randint(n, (1500,)) for n in (2, *GRID)], dim=1).unique(dim=0)
    features = torch.randn(len(indices), CHANNELS_IN).to(device, dtype).requires_grad_()

    def run() -> SparseConvTensor:
        given = SparseConvTensor(features, indices.int().to(device), list(GRID), batch_size=2)
        return layer(given)

    out = run()
    grad = torch.randn(out.features.shape).to(device, dtype)
    grads = torch.autograd.grad(out.features, (features, layer.weight), grad)
    places = out.indices.cpu().long()
    expected = _dense(layer, features, indices, places, grad, stride)
    found = [out.features, *grads]
    with torch.no_grad():
        layer.requires_grad_(False).eval()
        frozen = run()
    found.append(_in_order(frozen.features, frozen.indices.cpu().long(), places))
    names = ('output', 'gradient of features', 'gradient of kernel', 'output when frozen')
    what = f'{"strided" if strided else "submanifold"}, {len(indices)} voxels, '
    return Result(
        what=what + f'{dtype}'.removeprefix('torch.'),
        comparisons=[
            Comparison(name, _error(x.cpu(), y, dtype), allowed(dtype))
            for name, x, y in zip(names, found, [*expected, expected[0]], strict=True)
        ],
    )


def allowed(dtype: torch.dtype) -> float:
    """Largest allowed error: sums of up to 27 C products make about sqrt(27 C) eps in float32.

    In half precision the sums are float32, and the result is rounded once.
    """
    return rounding(dtype) * (4 if dtype == torch.float16 else 32)


def _error(found: Tensor, expected: Tensor, dtype: torch.dtype) -> float:
    return (norm_error if dtype == torch.float16 else row_error)(found, expected)


def _dense(
    layer: nn.Module, features: Tensor, indices: Tensor, places: Tensor, grad: Tensor, stride: int
) -> list[Tensor]:
    """Outputs at the indices ``places`` (M, 4), and gradients of features and kernel."""
    features = features.detach().cpu().double().requires_grad_()
    kernel = layer.weight.detach().cpu().double().requires_grad_()  # (out, z, y, x, in)
    sample, z, y, x = indices.unbind(1)
    grid = features.new_zeros(2, *GRID, CHANNELS_IN).index_put((sample, z, y, x), features)
    grid = F.conv3d(grid.movedim(-1, 1), kernel.movedim(-1, 1), stride=stride, padding=1)
    sample, z, y, x = places.unbind(1)
    out = grid.movedim(1, -1)[sample, z, y, x]
    return [out.detach(), *torch.autograd.grad(out, (features, kernel), grad.cpu().double())]


def _in_order(features: Tensor, indices: Tensor, places: Tensor) -> Tensor:
    """Features reordered from ``indices`` to ``places``, the same voxels in another order."""
    base = torch.tensor([GRID[0] * GRID[1] * GRID[2], GRID[1] * GRID[2], GRID[2], 1])
    own, wanted = ((x * base).sum(dim=1) for x in (indices, places))
    return features[
        own.argsort()[torch.searchsorted(own.sort().values, wanted)].to(features.device)
    ]
