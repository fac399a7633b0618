"""Operations counted, against those worked out by hand."""

import pytest
import torch
import torch.nn.functional as F
from spconv.pytorch import SparseConvTensor, SubMConv3d
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from projects.cmt_aqr.benchmarks.flops import count_flops
from projects.cmt_aqr.transformer.attention import CrossAttention


class Sparse(nn.Module):
    """Three voxels, two of them neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = SubMConv3d(4, 6, 3, bias=False, indice_key='subm')

    def forward(self) -> torch.Tensor:
        places = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 5, 5, 5]], dtype=torch.int32)
        return self.conv(SparseConvTensor(torch.ones(3, 4), places, [8, 8, 8], 1)).features


def test_dense_parts_are_counted_apart():
    conv, linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
    counts = count_flops(
        {'conv': conv, 'linear': linear},
        lambda: linear(F.relu(conv(torch.ones(1, 3, 4, 6))).mean((2, 3))),
    )
    assert counts == {'conv': 2 * 4 * 6 * 3 * 9 * 8, 'linear': 2 * 8 * 5}


def test_attention_is_counted():
    attention = CrossAttention(32, num_heads=4)
    query, tokens = torch.ones(1, 7, 32), torch.ones(1, 50, 32)
    projections = 2 * 32 * 32 * (7 + 50 + 50 + 7)
    logits_and_output = 2 * 2 * 7 * 50 * 32
    counts = count_flops({'attention': attention}, lambda: attention(query, tokens, tokens))
    assert counts == {'attention': projections + logits_and_output}


def test_sparse_convolution_works_where_voxels_are():
    sparse = Sparse()
    itself, neighbours = 3, 2
    assert count_flops({'sparse': sparse}, sparse) == {'sparse': 2 * 4 * 6 * (itself + neighbours)}


def test_nothing_stays_behind():
    """Nor after an error in the middle of a forward pass."""
    linear = nn.Linear(2, 2)
    count_flops({'linear': linear}, lambda: linear(torch.ones(2)))
    with pytest.raises(RuntimeError, match='shape'):
        count_flops({'linear': linear}, lambda: linear(torch.ones(3)))
    assert not linear._forward_hooks
    assert not linear._forward_pre_hooks
    assert not _get_current_dispatch_mode_stack()
