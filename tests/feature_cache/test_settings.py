"""One setting makes the pipelines of a config; what chance decides is refused with a remedy."""

import pytest
from mmengine.config import Config

from projects.cmt_aqr.cli.arguments import make_parser, read_config
from projects.cmt_aqr.cli.config_changes import add_failure
from projects.cmt_aqr.feature_cache.settings import cached_pipeline
from projects.cmt_aqr.usage_error import UsageError

CONFIG = 'configs/cmt_aqr/cmt_aqr_tiny_synthetic_cached.py'
RANGE = [-1.0, -1, -1, 1, 1, 1]
POINTS = dict(type='LoadPointsOfKeyframe', coord_type='LIDAR', load_dim=5, use_dim=5)
SWEEPS = dict(type='LoadPointsOfSweeps', sweeps_num=1, test_mode=True)
IMAGES = dict(type='LoadMultiViewImages')
MATRICES = dict(type='ComputeLidar2Img')
FIT = dict(type='ResizeCropFlipImage', final_dim=(64, 176), training=False)
BOXES = dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True)
FILTER_POINTS = dict(type='PointsRangeFilter', point_cloud_range=RANGE)
FILTER_BOXES = dict(type='ObjectRangeFilter', point_cloud_range=RANGE)
FAILURE = dict(type='BeamReduction', severity=2)
PACK = dict(type='Pack3DDetInputs', keys=['points', 'img'], meta_keys=('token',))


def rewrite(*steps: dict, training: bool = False) -> list[dict]:
    return cached_pipeline(steps, directory='there', training=training)


def test_failures_come_first_then_loading_by_branch_then_the_rest():
    steps = [FAILURE, POINTS, IMAGES, BOXES, SWEEPS, MATRICES, FILTER_POINTS, FILTER_BOXES, FIT]
    options = dict(type='CachedFeatures', directory='there', training=True)
    assert rewrite(*steps, PACK, training=True) == [
        FAILURE,
        dict(options, branch='lidar', transforms=[POINTS, SWEEPS, FILTER_POINTS]),
        dict(options, branch='camera', transforms=[IMAGES, MATRICES, FIT]),
        BOXES,
        FILTER_BOXES,
        dict(PACK, meta_keys=('token', 'cached_features')),
    ]


def test_one_branch_alone_is_cached_alone():
    assert [step['type'] for step in rewrite(POINTS, PACK)] == ['CachedFeatures', 'Pack3DDetInputs']


def test_a_pipeline_with_a_cache_stays_as_it_is():
    cached = rewrite(FAILURE, POINTS, PACK)
    assert rewrite(*cached) == cached


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (dict(FIT, training=True, resize_lim=(0.4, 0.5)), 'ResizeCropFlipImage.*training=False'),
        (dict(type='ResizeCropFlipImage', final_dim=(1, 1)), 'ResizeCropFlipImage draws anew'),
        (dict(SWEEPS, test_mode=False), 'LoadPointsOfSweeps.*set test_mode=True'),
        (dict(type='DrawIndex'), 'DrawIndex.*set variants'),
        (dict(type='GlobalRotScaleTransAll'), 'leave GlobalRotScaleTransAll out of the pipeline'),
        (dict(type='RandomFlip3DAll'), 'RandomFlip3DAll changes points or images at random'),
        (dict(type='PointShuffle'), 'PointShuffle changes points or images at random'),
        (dict(type='Nonsense'), 'Nonsense is not a registered transform'),
    ],
)
def test_what_chance_decides_is_refused_with_a_remedy(step, message):
    with pytest.raises(ValueError, match=message):
        rewrite(POINTS, step, PACK)


@pytest.fixture
def read(repo_root, monkeypatch):
    monkeypatch.chdir(repo_root)

    def read(*options: str, config: str = CONFIG) -> Config:
        arguments = [config, *(['--cfg-options', *options] if options else [])]
        return read_config(make_parser('test').parse_args(arguments))

    return read


def test_the_setting_becomes_pipelines_and_a_hook(read):
    cfg = read('feature_cache.directory=there', 'feature_cache.dtype=bfloat16')
    assert 'feature_cache' not in cfg
    assert cfg.custom_hooks[-1] == dict(
        type='FeatureCacheHook', directory='there', dtype='bfloat16', max_gigabytes=10
    )
    for loader, training in (('train', True), ('val', False), ('test', False)):
        pipeline = cfg[f'{loader}_dataloader'].dataset.pipeline
        cached = [step for step in pipeline if step.type == 'CachedFeatures']
        assert [(step.branch, step.training) for step in cached] == [
            ('lidar', training),
            ('camera', training),
        ]


def test_what_was_written_out_can_be_read_again(read, tmp_path):
    cfg = read()
    cfg.dump(tmp_path / 'dumped.py')
    again = read(config=str(tmp_path / 'dumped.py'))
    assert again.train_dataloader == cfg.train_dataloader
    assert again.custom_hooks == cfg.custom_hooks


def test_augmentation_and_a_cache_exclude_each_other(read):
    config = 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py'
    with pytest.raises(UsageError) as error:
        read('feature_cache.directory=there', config=config)
    assert config in str(error.value)
    assert 'feature_cache, pipeline of train_dataloader: DrawIndex' in str(error.value)


@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('feature_cache.folder=there', 'it needs directory and allows directory, dtype, max_gi'),
        ('feature_cache.dtype=int8', 'int8'),
    ],
)
def test_wrong_settings_are_named(read, option, message):
    with pytest.raises(UsageError, match=message):
        read(option)


def test_failures_can_be_added(read):
    cfg = read()
    add_failure(cfg, dict(type='CameraDrop'))
    assert cfg.test_dataloader.dataset.pipeline[0].type == 'CameraDrop'
