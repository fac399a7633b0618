"""Errors show what they should: one wrong row among many, and what is not a number."""

import math

import pytest
import torch

from projects.cmt_aqr.doctor.result import norm_error, row_error


def test_one_wrong_row_shows_whatever_the_number_of_rows():
    expected = torch.randn(10_000, 16)
    found = expected.clone()
    found[77] = -found[77]
    assert row_error(found, expected) > 0.5
    assert norm_error(found, expected) < 0.05


def test_a_row_of_nearly_zero_needs_no_relative_precision():
    expected = torch.ones(4, 16)
    expected[0] = 1e-9
    assert row_error(expected + 1e-9, expected) < 2e-9


def test_the_norm_of_the_error_is_relative():
    assert norm_error(torch.full((5,), 1.5), torch.ones(5)) == pytest.approx(0.5)


@pytest.mark.parametrize('error', [row_error, norm_error])
def test_nothing_is_expected_of_zeros_but_zeros(error):
    assert error(torch.zeros(3, 2), torch.zeros(3, 2)) == 0
    assert error(torch.full((3, 2), 1e-9), torch.zeros(3, 2)) > 1


@pytest.mark.parametrize('error', [row_error, norm_error])
def test_what_is_not_a_number_has_no_error_that_is_one(error):
    found = torch.ones(3, 2)
    found[1, 1] = torch.nan
    assert math.isnan(error(found, torch.ones(3, 2)))


def test_rows_must_not_be_missing():
    with pytest.raises(ValueError, match=r'shape \(3, 2\); expected \(4, 2\)'):
        row_error(torch.ones(3, 2), torch.ones(4, 2))
