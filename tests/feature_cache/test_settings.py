"""One setting makes the pipelines of a config; random transforms are refused with a remedy."""

import pytest
from mmengine.config import Config

from projects.cmt_aqr.cli.arguments import make_parser, read_config
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


def rewrite(*steps: dict, **options: object) -> list[dict]:
    return cached_pipeline(steps, directory='there', **options)


def test_loading_is_replaced_and_all_other_steps_stay_in_their_order():
    steps = [FAILURE, POINTS, IMAGES, BOXES, SWEEPS, MATRICES, FILTER_POINTS, FILTER_BOXES, FIT]
    options = dict(type='LoadCachedFeatures', directory='there', training=True)
    assert rewrite(*steps, PACK, training=True) == [
        FAILURE,
        dict(options, branch='lidar', transforms=[POINTS, SWEEPS, FILTER_POINTS]),
        dict(options, branch='camera', transforms=[IMAGES, MATRICES, FIT]),
        BOXES,
        FILTER_BOXES,
        dict(type='PackWithFeatures', packing=PACK),
    ]


def test_one_branch_alone_is_cached_alone():
    types = [step['type'] for step in rewrite(POINTS, PACK)]
    assert types == ['LoadCachedFeatures', 'PackWithFeatures']
    steps = rewrite(POINTS, IMAGES, FIT, FILTER_POINTS, PACK, branches=['camera'])
    assert [step['type'] for step in steps] == [
        'LoadPointsOfKeyframe',
        'LoadCachedFeatures',
        'PointsRangeFilter',
        'PackWithFeatures',
    ]


def test_a_cached_pipeline_is_unchanged():
    cached = rewrite(FAILURE, POINTS, PACK)
    assert rewrite(*cached) == cached


@pytest.mark.parametrize(
    ('step', 'message'),
    [
        (dict(FIT, training=True, zoom_lim=(0.4, 0.5)), 'ResizeCropFlipImage.*training=False'),
        (dict(type='ResizeCropFlipImage', final_dim=(1, 1)), 'ResizeCropFlipImage is random'),
        (dict(SWEEPS, test_mode=False), 'LoadPointsOfSweeps.*set test_mode=True'),
        (FAILURE, 'BeamReduction must come before points and images are loaded'),
        (dict(type='DrawIndex'), 'DrawIndex.*set variants'),
        (dict(type='GlobalRotScaleTransAll'), 'remove GlobalRotScaleTransAll from the pipeline'),
        (dict(type='RandomFlip3DAll'), 'RandomFlip3DAll changes points or images at random'),
        (dict(type='PointShuffle'), 'PointShuffle changes points or images at random'),
        (dict(type='Nonsense'), 'Nonsense is not a registered transform'),
    ],
)
def test_random_features_are_refused_with_a_remedy(step, message):
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
        cached = [step for step in pipeline if step.type == 'LoadCachedFeatures']
        assert [(step.branch, step.training) for step in cached] == [
            ('lidar', training),
            ('camera', training),
        ]
        assert {step.fill_command for step in cached} == {
            f'python tools/cache_features.py {CONFIG} {cfg.load_from} --cfg-options '
            'feature_cache.directory=there feature_cache.max_gigabytes=10 '
            'feature_cache.dtype=bfloat16'
        }


def test_a_config_that_a_run_wrote_can_be_read_again(read, tmp_path):
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
        ('feature_cache.branches=[radar]', r"branches is \['radar'\]; it must be a list of some"),
    ],
)
def test_wrong_settings_are_named(read, option, message):
    with pytest.raises(UsageError, match=message):
        read(option)


def test_only_the_loaders_that_a_command_reads_are_cached(repo_root, monkeypatch):
    """A test may cache its data although the training of the config is random."""
    monkeypatch.chdir(repo_root)
    options = ['--cfg-options', 'feature_cache.directory=there']
    args = make_parser('').parse_args(['configs/cmt/cmt_tiny_synthetic_finetune.py', *options])
    cfg = read_config(args, cached=['test_dataloader'])
    types = [step.type for step in cfg.test_dataloader.dataset.pipeline]
    assert types[0] == 'LoadCachedFeatures'
    assert 'LoadCachedFeatures' not in [s.type for s in cfg.train_dataloader.dataset.pipeline]
