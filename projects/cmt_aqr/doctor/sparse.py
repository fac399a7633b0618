"""Check of sparse convolutions against dense convolution in float64."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .result import Comparison, Result, name_of, norm_error, rounding, row_error

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

    def run() -> tuple[Tensor, Tensor]:
        """(2, z, y, x, C), zero at sites without a voxel, and the sites with one (N, 4)."""
        given = SparseConvTensor(features, indices.int().to(device), list(GRID), batch_size=2)
        out = layer(given)
        return out.dense().movedim(1, -1), out.indices

    grid, sites = run()
    grad = torch.randn(grid.shape).to(device, dtype)
    found = [grid, *torch.autograd.grad(grid, (features, layer.weight), grad)]
    expected = _dense(layer, features, indices, sites.cpu().long(), grad, stride)
    with torch.no_grad():
        layer.requires_grad_(False).eval()
        found.append(run()[0])
    names = ('output', 'gradient of features', 'gradient of kernel', 'output when frozen')
    error = norm_error if dtype == torch.float16 else row_error
    kind = 'strided' if strided else 'submanifold'
    return Result(
        what=f'{kind}, {len(indices)} voxels, {name_of(dtype)}',
        comparisons=[
            Comparison(name, error(x.cpu(), y), allowed(dtype))
            for name, x, y in zip(names, found, [*expected, expected[0]], strict=True)
        ],
    )


def allowed(dtype: torch.dtype) -> float:
    """Largest allowed error: sums of up to 27 C products make about sqrt(27 C) eps in float32.

    In half precision the sums are float32, and the result is rounded once.
    """
    return rounding(dtype) * (4 if dtype == torch.float16 else 32)


def _dense(
    layer: nn.Module, features: Tensor, indices: Tensor, sites: Tensor, grad: Tensor, stride: int
) -> list[Tensor]:
    """Output on the grid at the ``sites`` (M, 4), and gradients of features and kernel."""
    features = features.detach().cpu().double().requires_grad_()
    kernel = layer.weight.detach().cpu().double().requires_grad_()  # (out, z, y, x, in)
    grid = features.new_zeros(2, *GRID, CHANNELS_IN).index_put(indices.unbind(1), features)
    grid = F.conv3d(grid.movedim(-1, 1), kernel.movedim(-1, 1), stride=stride, padding=1)
    grid = grid.movedim(1, -1)
    occupied = grid.new_zeros(grid.shape[:-1]).index_put(sites.unbind(1), grid.new_ones(()))
    out = grid * occupied[..., None]
    return [out.detach(), *torch.autograd.grad(out, (features, kernel), grad.cpu().double())]
