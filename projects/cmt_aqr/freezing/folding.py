"""Folding of evaluation-mode norms into the preceding convolutions, sparse ones included."""

from itertools import pairwise

from mmdet3d.models.layers.spconv import IS_SPCONV2_AVAILABLE
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

# Kernels of spconv 2 have the output channels first, as fuse_conv_bn_eval expects; those of
# spconv 1 do not.
if IS_SPCONV2_AVAILABLE:
    from spconv.pytorch.conv import SparseConvolution

    SPARSE = (SparseConvolution,)
else:
    SPARSE = ()

_DENSE = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def fold_norms(module: nn.Module) -> int:
    """Fold every norm that directly follows a convolution among the children of its parent.

    Assumes that children are registered in the order in which they are computed; callers must
    compare the outputs with those of the original. mmcv's ``fuse_conv_bn`` assumes the same, but
    folds into ``Conv2d`` only, and past other modules in between.

    The module, in evaluation mode, is changed in place: folded norms become ``nn.Identity``.

    Returns:
        The number of folded norms.
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
    """Whether ``norm`` has running statistics of the output channels of ``conv``."""
    if not isinstance(norm, _BatchNorm) or norm.running_mean is None:
        return False
    # Transposed kernels have the output channels second, and only those of one group.
    foldable = isinstance(conv, (*_DENSE, *SPARSE)) or (
        isinstance(conv, _TRANSPOSED) and conv.groups == 1
    )
    return foldable and conv.out_channels == norm.num_features
