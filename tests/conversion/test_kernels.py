"""The layout of sparse kernels is told from their shapes, one for a file."""

import pytest
import torch

from projects.cmt_aqr.conversion import ConversionError
from projects.cmt_aqr.conversion.kernels import has_spconv1_layout, to_spconv2

NEW, OLD = torch.empty(16, 3, 3, 3, 5), torch.empty(3, 3, 3, 5, 16)
BOTH = torch.empty(3, 3, 3, 3, 3)
SHAPES = {'a': NEW.shape, 'b': NEW.shape, 'both': BOTH.shape}


def test_permutation():
    old = torch.randn(OLD.shape)
    new = to_spconv2(old)
    assert new.shape == NEW.shape
    assert new[4, 0, 1, 2, 3] == old[0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ('kernels', 'expected'),
    [
        ({'a': OLD, 'b': OLD}, True),
        ({'a': NEW, 'b': NEW}, False),
        ({'a': OLD, 'both': BOTH}, True),
        ({'a': NEW, 'both': BOTH}, False),
        ({'a': torch.empty(1, 2, 3, 4, 5)}, False),
        ({}, False),
    ],
)
def test_layout(kernels, expected):
    assert has_spconv1_layout(kernels, SHAPES) is expected


def test_both_layouts_in_one_file():
    with pytest.raises(ConversionError, match='both layouts: a that of spconv 1, b that of'):
        has_spconv1_layout({'a': OLD, 'b': NEW}, SHAPES)


def test_no_kernel_tells():
    with pytest.raises(ConversionError, match='cannot be told: all sizes of each are equal'):
        has_spconv1_layout({'both': BOTH}, SHAPES)
