"""The table of a model's parameters and learning rates."""

import pytest
import torch
from torch import nn

from projects.cmt_aqr.freezing.report import format_table, make_table
from projects.cmt_aqr.freezing.schedule import RateSummary


@pytest.fixture
def model() -> nn.Module:
    """Module names of CMT, at a few numbers each; the backbone is frozen."""
    model = nn.Module()
    model.img_backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).requires_grad_(False)
    model.img_neck = nn.Conv2d(2, 2, 1)
    model.pts_voxel_encoder = nn.Identity()
    model.pts_bbox_head = nn.Module()
    model.pts_bbox_head.transformer = nn.Linear(2, 2)
    model.pts_bbox_head.bias_scale = nn.Parameter(torch.ones(1))
    return model


@pytest.fixture
def rates(model) -> dict[int, RateSummary]:
    """Of all trainable parameters but the scale."""
    transformer = model.pts_bbox_head.transformer
    neck = dict.fromkeys(map(id, model.img_neck.parameters()), RateSummary(0.1, 0.5, 0.2))
    return neck | {
        id(transformer.weight): RateSummary(1.0, 3.0, 2.0),
        id(transformer.bias): RateSummary(0.5, 1.5, 1.0),
    }


def lines_of(table) -> list[str]:
    return [' '.join(line.split()) for line in format_table(table).splitlines()]


def test_rows_count_every_part_of_the_model(model, rates):
    table = {row.part: row for row in make_table(model, rates)}
    neck = dict(start=(0.1, 0.1), highest=(0.5, 0.5), end=(0.2, 0.2))
    transformer = dict(start=(0.5, 1.0), highest=(1.5, 3.0), end=(1.0, 2.0))
    assert {part: (row.frozen, row.trainable, row.rate) for part, row in table.items()} == {
        'img_backbone': (8, 0, None),
        'img_neck': (0, 6, neck),
        'pts_voxel_encoder': (0, 0, None),
        'pts_bbox_head.transformer': (0, 6, transformer),
        'pts_bbox_head': (0, 1, None),
    }
    assert table['img_backbone'].frozen_mb == pytest.approx(32e-6)
    assert table['pts_bbox_head'].without_rate == ('pts_bbox_head.bias_scale',)


def test_table_shows_the_rates_over_the_run(model, rates):
    assert lines_of(make_table(model, rates)) == [
        'module frozen trainable frozen MB trainable MB rate: start highest end',
        'img_backbone 8 0 0.00 0.00 - - -',
        'img_neck 0 6 0.00 0.00 0.1 0.5 0.2',
        'pts_voxel_encoder 0 0 0.00 0.00 - - -',
        'pts_bbox_head.transformer 0 6 0.00 0.00 0.5 to 1 1.5 to 3 1 to 2',
        'pts_bbox_head 0 1 0.00 0.00 1 without',
        'total 8 13 0.00 0.00',
    ]


def test_rates_that_are_not_known_are_question_marks(model):
    rates = dict.fromkeys(map(id, model.img_neck.parameters()), RateSummary(0.1))
    assert 'img_neck 0 6 0.00 0.00 0.1 ? ?' in lines_of(make_table(model, rates))


def test_columns_are_aligned(model, rates):
    lines = format_table(make_table(model, rates)).splitlines()
    ends = {len(line) for line in lines if not line.startswith(('total', 'pts_bbox_head '))}
    assert len(ends) == 1


def test_table_of_a_model_without_modules():
    assert lines_of(make_table(nn.Module(), {}))[-1] == 'total 0 0 0.00 0.00'
