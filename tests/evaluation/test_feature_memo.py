"""A detector that counts what it extracts."""

import pytest
import torch
from torch import nn

from projects.cmt_aqr.evaluation.feature_memo import reused_features


class Detector(nn.Module):
    """Features are the input doubled."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def extract_img_feat(self, batch):
        self.calls.append('camera')
        return None if batch.get('imgs') is None else 2 * batch['imgs']

    def extract_pts_feat(self, batch):
        self.calls.append('lidar')
        return 2 * batch['voxels']['voxels']


@pytest.fixture
def detector():
    return Detector()


def batch(images, cells=0.0):
    return {
        'imgs': torch.tensor([images]),
        'voxels': {'voxels': torch.ones(2), 'coors': torch.tensor([cells])},
    }


def test_a_branch_runs_again_only_on_another_input(detector):
    with reused_features(detector):
        for images in (1.0, 3.0, 1.0, 3.0):
            assert detector.extract_img_feat(batch(images)) == 2 * images
            detector.extract_pts_feat(batch(images))
    assert detector.calls == ['camera', 'lidar', 'camera']


def test_every_tensor_of_an_input_counts(detector):
    with reused_features(detector):
        detector.extract_pts_feat(batch(1.0, cells=0.0))
        detector.extract_pts_feat(batch(1.0, cells=1.0))
    assert detector.calls == ['lidar', 'lidar']


def test_the_first_and_the_latest_input_are_kept(detector):
    with reused_features(detector):
        for images in (1.0, 2.0, 3.0, 1.0, 3.0, 2.0):
            detector.extract_img_feat(batch(images))
    assert detector.calls == ['camera'] * 4


def test_nothing_is_reused_after_clearing_or_outside_of_the_block(detector):
    with reused_features(detector) as memos:
        detector.extract_img_feat(batch(1.0))
        memos.clear()
        detector.extract_img_feat(batch(1.0))
    detector.extract_img_feat(batch(1.0))
    assert detector.calls == ['camera'] * 3


def test_an_absent_input_is_left_to_the_detector(detector):
    with reused_features(detector):
        assert detector.extract_img_feat({}) is None
        assert detector.extract_img_feat({'features': {}}) is None
    assert detector.calls == ['camera'] * 2
