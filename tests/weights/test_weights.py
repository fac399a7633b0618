"""The shipped weights fit the tiny model exactly and find what they were trained to find."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from projects.cmt_aqr.apis import detect, init_detector
from projects.cmt_aqr.cli.config_changes import add_failure
from projects.cmt_aqr.visualization.scene_boxes import AGAINST_TRUTH, Kind, compare

WEIGHTS = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
METRIC = 'NuScenes metric/pred_instances_3d_NuScenes/mAP'


@pytest.mark.parametrize(
    ('weights', 'config'),
    [
        ('cmt_tiny_synthetic', 'cmt/cmt_tiny_synthetic'),
        ('cmt_tiny_synthetic_failures', 'cmt/cmt_tiny_synthetic'),
        ('cmt_aqr_tiny_synthetic_failures', 'cmt_aqr/cmt_aqr_tiny_synthetic_failures'),
        ('cmt_tiny_real_frame_failures', 'cmt/cmt_tiny_real_frame_failures'),
        ('cmt_tiny_synthetic_health', 'cmt/cmt_tiny_synthetic_health'),
        ('cmt_tiny_streets', 'cmt/cmt_tiny_streets'),
        ('cmt_tiny_streets_failures', 'cmt/cmt_tiny_streets_failures'),
        ('cmt_tiny_streets_experts', 'cmt/cmt_tiny_streets_experts'),
        ('cmt_tiny_streets_plan', 'cmt/cmt_tiny_streets_plan'),
    ],
)
def test_every_key_and_shape_is_the_models(repo_root, weights, config):
    from mmdet3d.registry import MODELS

    init_default_scope('mmdet3d')
    model = Config.fromfile(repo_root / f'configs/{config}.py').model
    expected = MODELS.build(model).state_dict()
    path = repo_root / f'projects/cmt_aqr/weights/{weights}.pth'
    state = torch.load(path, weights_only=True)['state_dict']
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in expected.items()}
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize(
    'name',
    [
        'cmt_tiny_synthetic',
        'cmt_tiny_real_frame_failures',
        'cmt_tiny_streets',
        'cmt_tiny_streets_plan',
    ],
)
def test_it_says_how_it_came_about(repo_root, name):
    path = repo_root / f'projects/cmt_aqr/weights/{name}.pth'
    meta = torch.load(path, weights_only=True)['meta']
    assert meta['seed'] == 0
    assert {'config', 'commit', 'command', 'epoch'} <= meta.keys()


def test_the_keyframe_is_found_whole_and_damaged(real_frame):
    """What a user sees first: nearly every box, and most of them without LiDAR."""
    model = init_detector('cmt_tiny_real_frame_failures', device='cpu')
    hits = {}
    for failure, expected in ((None, 51), ('view_drop_1', 51), ('lidar_drop_1', 30)):
        found = detect(model, real_frame, failure=failure, score_threshold=0.3)
        items = compare(found.truth, found.boxes, AGAINST_TRUTH)
        hits[failure] = sum(item.kind is Kind.HIT for item in items)
        assert hits[failure] >= expected, hits
        if failure is None:
            assert not [item for item in items if item.kind is Kind.FALSE_ALARM]


def score(repo_root, data_root, failure, work_dir):
    """Official mAP of the shipped weights on a database, by tools/test.py's own path."""
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    if failure is not None:
        add_failure(cfg, dict(type=failure))
    root = f'{data_root}/'
    cfg.merge_from_dict(
        {
            'work_dir': str(work_dir),
            'load_from': str(repo_root / WEIGHTS),
            'test_dataloader.dataset.data_root': root,
            'test_dataloader.num_workers': 0,
            'test_dataloader.persistent_workers': False,
            'train_dataloader': None,
            'train_cfg': None,
            'optim_wrapper': None,
            'param_scheduler': None,
            'val_dataloader': None,
            'val_cfg': None,
            'val_evaluator': None,
        }
    )
    return Runner.from_cfg(cfg).test()[METRIC]


@pytest.mark.slow
def test_official_score_with_both_sensors_and_without_either(repo_root, weights_data, tmp_path):
    """The foundation's promise, on scenes that nobody trained on."""
    whole, blind, dark = (
        score(repo_root, weights_data, failure, tmp_path / f'run_{failure}')
        for failure in (None, 'LidarDrop', 'CameraDrop')
    )
    assert whole >= 0.35
    assert blind >= 0.08
    assert dark <= 0.75 * whole


@pytest.fixture(scope='module')
def weights_data(tmp_path_factory):
    """Two validation scenes of a seed of their own, with images as large as the model wants."""
    from projects.cmt_aqr.data_preparation.info_files import create_info_files
    from projects.cmt_aqr.data_preparation.synthetic import DatabaseSettings, make_database

    settings = DatabaseSettings(train_scenes=1, val_scenes=2, keyframes=10, sweeps=1, seed=7)
    root = make_database(tmp_path_factory.mktemp('weights') / 'data', settings)
    create_info_files(root, version=settings.version)
    return root
