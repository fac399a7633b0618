"""Phrases of images, and that an encoder learns them."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from benchmarks.encoders.image_text import FAR, phrases_of
from projects.cmt_aqr.pretraining import IGNORED, TokenTargets

CLASSES = 2


def phrase(label: int, place: int, distance: int) -> int:
    return (label * 3 + place) * 2 + distance


@pytest.mark.parametrize(('column', 'place'), [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_box_makes_its_phrase_true(column, place):
    """Two rows of six tokens, one of which sees a box."""
    labels = torch.full((1, 1, 12), CLASSES)
    log_depths = torch.zeros(1, 1, 12)
    labels[..., 6 + column] = 1
    log_depths[..., 6 + column] = FAR + 0.1
    true = phrases_of(TokenTargets(labels, log_depths), 6, CLASSES)
    assert true.shape == (1, 1, CLASSES * 3 * 2)
    assert true[0, 0].nonzero().flatten().tolist() == [phrase(1, place, 1)]


def test_background_and_missing_cameras_make_none_true():
    labels = torch.tensor([[[CLASSES] * 6, [IGNORED] * 6]])
    assert not phrases_of(TokenTargets(labels, torch.zeros(1, 2, 6)), 3, CLASSES).any()


@pytest.mark.parametrize('name', ['pretrain_dinov2', 'pretrain_siglip'])
def test_transforms_of_the_pretraining_can_be_built(repo_root, name):
    cfg = Config.fromfile(repo_root / 'benchmarks' / 'encoders' / f'{name}.py')
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        Compose(cfg.train_dataloader.dataset.pipeline)
