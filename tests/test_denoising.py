"""Denoising queries: places, noise, labels and what may look at what."""

import pytest
import torch
from ground_truth import truth_of

from projects.cmt_aqr.denoising import DenoisingGenerator

RANGE = (-10.0, -10.0, -10.0, 10.0, 10.0, 10.0)


def boxes_of(*counts):
    """Ground truth of samples with so many boxes, of classes 0, 1, ..."""
    samples = []
    for sample, count in enumerate(counts):
        boxes = torch.zeros(count, 9)
        boxes[:, 0] = torch.arange(count) + 5 * sample
        boxes[:, 3:6] = 2
        samples.append((boxes, range(count)))
    return truth_of(*samples)


def generator(**options):
    return DenoisingGenerator(point_cloud_range=RANGE, num_classes=10, **options)


def test_places_of_a_batch():
    queries = generator(groups=2, noise_scale=0.0)(boxes_of(1, 0, 3), num_query=50)
    assert queries.reference.shape == (3, 6, 3)
    assert queries.sample.tolist() == [0, 2, 2, 2] * 2
    assert queries.slot.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    x = queries.reference[queries.sample, queries.slot, 0] * 20 - 10
    torch.testing.assert_close(x, torch.tensor([0.0, 10, 11, 12] * 2).clamp(max=10))
    assert queries.reference[1].abs().sum() == 0
    assert queries.targets.raw_labels.tolist() == [0, 0, 1, 2] * 2


def test_noise_stays_within_the_box_and_decides_the_label():
    queries = generator(groups=10, split=0.75)(boxes_of(4, 4), num_query=1000)
    moved = queries.reference[queries.sample, queries.slot] * 20 - 10
    noise = moved - queries.targets.boxes[:, :3]  # half a box is one metre
    assert noise.abs().max() <= 1 + 1e-5
    far = noise.norm(dim=1) > 0.75
    assert 0 < far.sum() < len(far)
    assert (queries.targets.labels[far] == 10).all()
    assert torch.equal(queries.targets.labels[~far], queries.targets.raw_labels[~far])


def test_which_queries_attend_to_which():
    queries = generator(groups=2)(boxes_of(2), num_query=50)
    allowed = queries.self_attn_mask(3)
    expected = torch.tensor(
        [
            [1, 1, 0, 0, 1, 1, 1],
            [1, 1, 0, 0, 1, 1, 1],
            [0, 0, 1, 1, 1, 1, 1],
            [0, 0, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 1, 1, 1],
            [0, 0, 0, 0, 1, 1, 1],
            [0, 0, 0, 0, 1, 1, 1],
        ],
        dtype=torch.bool,
    )
    assert torch.equal(allowed, expected)


def test_groups_never_outnumber_the_learned_queries():
    assert generator(groups=10)(boxes_of(4), num_query=9).slots == 8


@pytest.mark.parametrize(('counts', 'num_query'), [((0, 0), 50), ((8, 2), 7)])
def test_none_where_there_is_no_box_or_no_room(counts, num_query):
    assert generator()(boxes_of(*counts), num_query=num_query) is None


def test_ignored_boxes_get_no_queries():
    boxes = torch.zeros(3, 9)
    boxes[:, 0] = torch.arange(3)
    queries = generator(groups=2, noise_scale=0.0)(
        truth_of((boxes, (-1, 4, -1)), (boxes[:1], (-1,))), num_query=50
    )
    assert queries.group_size == 1
    assert queries.sample.tolist() == [0, 0]
    assert queries.targets.boxes[:, 0].tolist() == [1, 1]
    assert queries.targets.raw_labels.tolist() == [4, 4]


def test_a_split_beyond_the_noise_is_refused():
    with pytest.raises(ValueError, match=r'split is 1\.5; it must be from 0 to 1'):
        generator(split=1.5)


def test_the_shift_of_the_noise_is_added_to_half_a_box():
    queries = generator(groups=10, noise_shift=0.5)(boxes_of(4, 4), num_query=1000)
    moved = queries.reference[queries.sample, queries.slot] * 20 - 10
    noise = (moved - queries.targets.boxes[:, :3]).abs().max()  # half a box is one metre
    assert 1.2 < noise <= 1.5 + 1e-5
