"""How far a branch is cached follows from what of it is frozen."""

import pytest
import torch

from projects.cmt_aqr.feature_cache.fixed_parts import find_fixed_parts, module_names

NECKS = {'img_neck.frozen': True, 'pts_neck.frozen': True}
ALL_TRAINED = {
    f'{name}.frozen': False
    for name in ('img_backbone', 'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone')
}


def stages(model) -> dict[str, int]:
    parts = find_fixed_parts(model, dtype=torch.float16)
    return {branch: part.stages for branch, part in parts.items()}


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, {'lidar': 1, 'camera': 1}),
        (NECKS, {'lidar': 2, 'camera': 2}),
        ({'pts_neck.frozen': True}, {'lidar': 2, 'camera': 1}),
        (ALL_TRAINED, {}),
        ({**ALL_TRAINED, **NECKS}, {}),
        ({'img_backbone.frozen': False, 'img_backbone.frozen_stages': 2}, {'lidar': 1}),
        ({'pts_middle_encoder.frozen': False}, {'camera': 1}),
        ({'pts_backbone.always_trainable': ['blocks.1']}, {'camera': 1}),
    ],
    ids=['A', 'D', 'one neck', 'C', 'necks alone', 'partly', 'encoder', 'excepted'],
)
def test_cached_is_what_is_frozen_from_the_input_on(build_model, changes, expected):
    assert stages(build_model(changes)) == expected


def test_a_branch_that_is_not_cached_is_logged_with_the_reason(build_model, log):
    log.clear()
    model = build_model({'img_backbone.frozen': False, 'img_backbone.frozen_stages': 2})
    find_fixed_parts(model, dtype=torch.float16)
    assert 'feature cache: camera is not cached, for img_backbone is not frozen' in log


def test_without_gradient_is_not_yet_frozen(build_model):
    """Norms whose statistics move give other features each time."""
    model = build_model(ALL_TRAINED)
    model.img_backbone.requires_grad_(False)
    assert stages(model) == {}
    model.img_backbone.eval()
    assert stages(model) == {'camera': 1}


def test_in_evaluation_backbones_are_fixed_and_share_the_features_of_training(build_model):
    trained_on_it = find_fixed_parts(build_model(), dtype=torch.float16)
    evaluated = find_fixed_parts(build_model(ALL_TRAINED).eval(), dtype=torch.float16)
    assert evaluated == trained_on_it


def test_the_precision_has_a_folder_of_its_own(build_model):
    model = build_model()
    half, other = (find_fixed_parts(model, dtype=d) for d in (torch.float16, torch.bfloat16))
    assert half['camera'].folder != other['camera'].folder


def test_a_fast_path_of_lower_precision_has_a_folder_of_its_own(build_model):
    plain, exact, lower = (
        find_fixed_parts(build_model({'fast_path': path}), dtype=torch.float16)
        for path in (None, {}, dict(dtype='bfloat16'))
    )
    assert plain == exact
    assert plain['camera'].folder != lower['camera'].folder
    assert plain['camera'].stages == lower['camera'].stages


def test_one_sensor_has_one_branch(build_model):
    model = build_model(
        {
            'pts_bbox_head.modalities': ['camera'],
            'pts_bbox_head.aqr': None,
            **dict.fromkeys(
                ('pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck')
            ),
        }
    )
    assert stages(model) == {'camera': 1}


def test_masked_images_cannot_be_cached_in_training(build_model):
    model = build_model({'grid_mask': dict(_delete_=True, type='GridMask')})
    with pytest.raises(ValueError, match=r'grid_mask .*: set model=dict\(grid_mask=None\)'):
        find_fixed_parts(model, dtype=torch.float16)
    assert stages(model.eval()) == {'lidar': 1, 'camera': 1}


def test_names_of_the_cached_modules(build_model):
    parts = find_fixed_parts(build_model(NECKS), dtype=torch.float16)
    assert module_names('camera', parts['camera']) == ['img_backbone', 'img_neck']
    assert module_names('lidar', parts['lidar'])[-2:] == ['pts_backbone', 'pts_neck']
