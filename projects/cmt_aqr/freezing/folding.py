"""Norms in evaluation mode folded into the convolutions before them, sparse ones too."""

from __future__ import annotations

from itertools import pairwise

from mmdet3d.models.layers.spconv import IS_SPCONV2_AVAILABLE
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Their kernels have the output channels first, as torch's function wants them; spconv 1's have not.
if IS_SPCONV2_AVAILABLE:
    from spconv.pytorch.conv import SparseConvolution

    SPARSE = (SparseConvolution,)
else:
    SPARSE = ()

_DENSE = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold_norms(module: nn.Module) -> int:
    """Fold every norm that stands right behind a convolution among the children of its parent.

    The order of the children is taken for that of the computation, which is right for the usual
    blocks, though nothing makes it so: hold the outputs against those of the original.
    mmcv's ``fuse_conv_bn`` goes by the same order, but folds into ``Conv2d`` alone, and across what
    stands between.

    Args:
        module: in evaluation mode; changed in place. Folded norms become ``nn.Identity``.

    Returns:
        how many were folded.
    """
    folded = 0
    for parent in module.modules():
        for (conv_name, conv), (norm_name, norm) in pairwise([*parent.named_children()]):
            if not _fit(conv, norm):
                continue
            transposed = isinstance(conv, _TRANSPOSED)
            parent.add_module(conv_name, fuse_conv_bn_eval(conv, norm, transpose=transposed))
            parent.add_module(norm_name, nn.Identity())
            folded += 1
    return folded


def _fit(conv: nn.Module, norm: nn.Module) -> bool:
    """Whether the second is a norm with running statistics of what the first gives."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return False
    # A transposed kernel has its output channels second, and those of one group only.
    foldable = isinstance(conv, (*_DENSE, *SPARSE)) or (
        isinstance(conv, _TRANSPOSED) and conv.groups == 1
    )
    return foldable and conv.out_channels == norm.num_features
