"""Denoising queries: places, noise, labels and what may look at what."""

import pytest
import torch

from projects.cmt_aqr.denoising import DenoisingGenerator
from projects.cmt_aqr.matching.criterion import GroundTruth

RANGE = (-10.0, -10.0, -10.0, 10.0, 10.0, 10.0)


def truth_of(*counts):
    samples = []
    for sample, count in enumerate(counts):
        boxes = torch.zeros(count, 9)
        boxes[:, 0] = torch.arange(count) + 5 * sample
        boxes[:, 3:6] = 2
        samples.append(GroundTruth(boxes, torch.arange(count)))
    return samples


def generator(**options):
    return DenoisingGenerator(point_cloud_range=RANGE, num_classes=10, **options)


def test_places_of_a_batch():
    queries = generator(groups=2, noise_scale=0.0)(truth_of(1, 0, 3), num_query=50)
    assert queries.reference.shape == (3, 6, 3)
    assert queries.sample.tolist() == [0, 2, 2, 2] * 2
    assert queries.slot.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    x = queries.reference[queries.sample, queries.slot, 0] * 20 - 10
    torch.testing.assert_close(x, torch.tensor([0.0, 10, 11, 12] * 2).clamp(max=10))
    assert queries.reference[1].abs().sum() == 0
    assert queries.targets.raw_labels.tolist() == [0, 0, 1, 2] * 2


def test_noise_stays_within_the_box_and_decides_the_label():
    queries = generator(groups=10, split=0.75)(truth_of(4, 4), num_query=1000)
    moved = queries.reference[queries.sample, queries.slot] * 20 - 10
    noise = moved - queries.targets.boxes[:, :3]  # half a box is one metre
    assert noise.abs().max() <= 1 + 1e-5
    far = noise.norm(dim=1) > 0.75
    assert 0 < far.sum() < len(far)
    assert (queries.targets.labels[far] == 10).all()
    assert torch.equal(queries.targets.labels[~far], queries.targets.raw_labels[~far])


def test_who_may_look_at_whom():
    queries = generator(groups=2)(truth_of(2), num_query=50)
    allowed = queries.may_look(3)
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
    assert generator(groups=10)(truth_of(4), num_query=9).slots == 8


@pytest.mark.parametrize(('counts', 'num_query'), [((0, 0), 50), ((8, 2), 7)])
def test_none_where_there_is_no_box_or_no_room(counts, num_query):
    assert generator()(truth_of(*counts), num_query=num_query) is None
