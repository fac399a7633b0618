"""Which output of a branch is cached follows from the frozen modules."""

import pytest
import torch

from projects.cmt_aqr.feature_cache.frozen_features import feature_folder

FROZEN_NECKS = {'img_neck.frozen': True, 'pts_neck.frozen': True}
ALL_TRAINED = {
    f'{name}.frozen': False
    for name in ('img_backbone', 'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone')
}


def folder(model, branch: str, *, training: bool = True, dtype: torch.dtype = torch.float16) -> str:
    return feature_folder(model, branch, dtype=dtype, training=training)


def module(model, branch: str, **options) -> str:
    return folder(model, branch, **options).partition('/')[0]


@pytest.mark.parametrize(
    ('changes', 'lidar', 'camera'),
    [
        ({}, 'pts_backbone', 'img_backbone'),
        (FROZEN_NECKS, 'pts_neck', 'img_neck'),
        ({'pts_neck.frozen': True}, 'pts_neck', 'img_backbone'),
    ],
    ids=['backbones', 'necks too', 'one neck'],
)
def test_the_last_frozen_output_is_cached(build_model, changes, lidar, camera):
    model = build_model(changes)
    for training in (True, False):
        assert module(model, 'lidar', training=training) == lidar
        assert module(model.eval(), 'camera', training=training) == camera


@pytest.mark.parametrize(
    ('changes', 'branch', 'trained'),
    [
        (ALL_TRAINED, 'lidar', 'pts_voxel_encoder'),
        ({**ALL_TRAINED, **FROZEN_NECKS}, 'camera', 'img_backbone'),
        (
            {'img_backbone.frozen': False, 'img_backbone.frozen_stages': 2},
            'camera',
            'img_backbone',
        ),
        ({'pts_middle_encoder.frozen': False}, 'lidar', 'pts_middle_encoder'),
        ({'pts_backbone.always_trainable': ['blocks.1']}, 'lidar', r'pts_backbone\.blocks\.1'),
    ],
)
def test_a_branch_that_trains_is_refused(build_model, changes, branch, trained):
    model = build_model(changes)
    other = {'lidar': 'camera', 'camera': 'lidar'}[branch]
    message = rf"^{trained}.* is not frozen.*, or set feature_cache.branches=\['{other}'\]"
    with pytest.raises(ValueError, match=message):
        folder(model, branch)
    assert module(model, branch, training=False) in ('pts_backbone', 'img_backbone')


def test_norms_with_moving_statistics_are_not_frozen(build_model):
    model = build_model(ALL_TRAINED)
    model.img_backbone.requires_grad_(False)
    with pytest.raises(ValueError, match='img_backbone is not frozen'):
        folder(model, 'camera')


def test_tests_share_the_features_of_training(build_model):
    trained_on_it, evaluated = build_model(), build_model(ALL_TRAINED).eval()
    for branch in ('lidar', 'camera'):
        assert folder(evaluated, branch, training=False) == folder(trained_on_it, branch)


def test_the_mode_of_the_model_stays(build_model):
    model = build_model().eval()
    folder(model, 'camera')
    assert not any(part.training for part in model.modules())


def test_each_precision_has_its_own_folder(build_model):
    plain, exact, lower = (
        build_model({'fast_path': path}) for path in (None, {}, dict(dtype='bfloat16'))
    )
    assert folder(plain, 'camera') == folder(exact, 'camera')
    assert len({folder(plain, 'camera'), folder(lower, 'camera')}) == 2
    assert folder(plain, 'camera') != folder(plain, 'camera', dtype=torch.bfloat16)


def test_a_missing_branch_is_named(build_model):
    lidar = ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck')
    head = {'pts_bbox_head.modalities': ['camera'], 'pts_bbox_head.aqr': None}
    model = build_model({**head, **dict.fromkeys(lidar)})
    assert module(model, 'camera') == 'img_backbone'
    with pytest.raises(ValueError, match=r"no lidar branch: set .*branches=\['camera'\]"):
        folder(model, 'lidar')


def test_randomly_masked_images_cannot_be_cached_for_training(build_model):
    model = build_model({'grid_mask': dict(_delete_=True, type='GridMask')})
    with pytest.raises(ValueError, match=r'grid_mask .*: set model\.grid_mask=None'):
        folder(model, 'camera')
    assert module(model, 'camera', training=False) == 'img_backbone'
