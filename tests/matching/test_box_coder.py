"""Boxes to codes and back, and the choice of the best boxes."""

import math

import pytest
import torch

from projects.cmt_aqr.matching import BoxCoder
from projects.cmt_aqr.matching.box_coder import decode_boxes, encode_boxes

LIMITS = [-10.0, -10.0, -10.0, 10.0, 10.0, 10.0]


def test_code_by_hand():
    box = torch.tensor([1.0, 2, 3, math.e, 1, math.e**2, math.pi / 6, 4, 5])
    code = encode_boxes(box)
    torch.testing.assert_close(
        code, torch.tensor([1, 2, 1, 0, 3, 2, 0.5, math.sqrt(3) / 2, 4, 5]), atol=1e-6, rtol=1e-6
    )
    torch.testing.assert_close(decode_boxes(code), box)


@pytest.mark.parametrize(
    ('layout', 'expected'),
    [('named', [0, 1, 3, 4, 2, 5, 6, 7, 8, 9]), ('released', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])],
)
def test_layouts(layout, expected):
    sizes = {'center': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}
    parts = torch.arange(10.0).split(list(sizes.values()))
    coder = BoxCoder(post_center_range=LIMITS, layout=layout)
    assert coder.join(dict(zip(sizes, parts, strict=True))).tolist() == expected


def codes_at(x):
    """One box of unit size at each x."""
    codes = torch.zeros(len(x), 10)
    codes[:, 0] = torch.tensor(x)
    codes[:, 7] = 1
    return codes


def test_best_boxes_over_tasks():
    """Class 0 is the first task's, classes 1 and 2 are the second's, with boxes of their own."""
    coder = BoxCoder(post_center_range=LIMITS, max_num=3)
    codes = [codes_at([1.0, 2.0]), codes_at([-1.0, -2.0])]
    logits = [torch.tensor([[2.0], [0.0]]), torch.tensor([[-3.0, 1.0], [3.0, -4.0]])]
    boxes, scores, labels = coder.decode(codes, logits)
    assert labels.tolist() == [1, 0, 2]
    assert boxes[:, 0].tolist() == [-2, 1, -1]
    torch.testing.assert_close(scores, torch.tensor([3.0, 2.0, 1.0]).sigmoid())


def test_more_boxes_asked_for_than_there_are():
    coder = BoxCoder(post_center_range=LIMITS, max_num=50)
    boxes, _, labels = coder.decode([codes_at([1.0, 2.0])], [torch.zeros(2, 3)])
    assert len(boxes) == len(labels) == 6


def test_boxes_outside_of_the_range_or_below_the_threshold_are_dropped():
    coder = BoxCoder(post_center_range=LIMITS, score_threshold=0.5)
    boxes, _, _ = coder.decode([codes_at([1.0, 11.0, 3.0])], [torch.tensor([[1.0], [2.0], [-1.0]])])
    assert boxes[:, 0].tolist() == [1]


@pytest.mark.parametrize('axis', range(3))
@pytest.mark.parametrize('sign', [1, -1])
def test_each_limit_of_the_range_drops_boxes(axis, sign):
    coder = BoxCoder(post_center_range=LIMITS)
    boxes = torch.zeros(2, 9)
    boxes[:, 3:6] = 1
    beyond = LIMITS[axis + 3 * (sign > 0)] + sign * 0.5
    boxes[1, axis] = beyond
    found, _, _ = coder.decode([encode_boxes(boxes)], [torch.tensor([[1.0], [2.0]])])
    assert len(found) == 1
    assert found[0, axis] == 0


@pytest.mark.parametrize(
    ('options', 'message'), [({'layout': 'other'}, "'other'"), ({'max_num': 0}, 'max_num is 0')]
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        BoxCoder(post_center_range=LIMITS, **options)
