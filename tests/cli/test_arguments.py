"""Mistakes on the command line are found early, and the messages name the remedy."""

import pickle
from pathlib import Path

import pytest
from mmengine.config import Config

from projects.cmt_aqr.cli.arguments import (
    add_inference_arguments,
    check_data,
    exit_on_usage_error,
    inference_settings,
    make_parser,
    read_config,
)
from projects.cmt_aqr.usage_error import UsageError


def read(path: Path, *arguments: str) -> Config:
    return read_config(make_parser('test').parse_args([str(path), *arguments]))


@pytest.fixture
def config_file(tmp_path) -> Path:
    path = tmp_path / 'plain.py'
    path.write_text(
        "seed = 5\nrandomness = dict(seed=seed)\ncustom_hooks = [dict(type='RunInfoHook')]\n"
    )
    return path


def test_arguments_change_the_config(config_file):
    options = [
        '--work-dir',
        'there',
        '--seed',
        '7',
        '--deterministic',
        '--cfg-options',
        'sync_bn=torch',
    ]
    cfg = read(config_file, *options)
    assert (cfg.work_dir, cfg.sync_bn) == ('there', 'torch')
    assert cfg.randomness == dict(seed=7, deterministic=True)


def test_what_is_not_given_stays_as_in_the_config(config_file):
    cfg = read(config_file)
    assert (cfg.work_dir, cfg.launcher) == ('work_dirs/plain', 'none')
    assert cfg.randomness == dict(seed=5)


def test_a_run_has_the_hooks_of_its_config_and_no_others(config_file):
    assert read(config_file).custom_hooks == [dict(type='RunInfoHook')]
    config_file.write_text('resume = False\n')
    assert 'custom_hooks' not in read(config_file)


def test_settings_without_effect_are_named_with_what_stands_for_them(config_file):
    config_file.write_text('lr_config = dict(policy="cyclic")\nevaluation = dict(interval=1)\n')
    with pytest.raises(UsageError) as error:
        read(config_file)
    assert str(error.value) == (
        f'config {config_file}: lr_config is of MMDetection3D 0.x and has no effect: use '
        'param_scheduler, with every end as a ratio (eta_min_ratio); evaluation is of '
        'MMDetection3D 0.x and has no effect: use val_evaluator, and '
        'train_cfg=dict(val_interval=...)'
    )


def test_missing_config_is_named_with_the_nearest_one():
    with pytest.raises(UsageError, match=r'did you mean configs/cmt/cmt_tiny_synthetic\.py'):
        read(Path('configs/cmt/cmt_tiny_sinthetic.py'))
    with pytest.raises(UsageError, match=r'config zzz\.py does not exist \(in '):
        read(Path('zzz.py'))


@pytest.mark.parametrize(
    'wrap',
    [
        lambda dataset: dataset,
        lambda dataset: dict(type='CBGSDataset', dataset=dataset),
        lambda dataset: dict(type='ConcatDataset', datasets=[dict(type='Other'), dataset]),
    ],
    ids=['plain', 'wrapped', 'in a list'],
)
def test_missing_data_is_named_with_the_command_that_makes_it(tmp_path, wrap):
    dataset = dict(type='NuScenesDataset', data_root=str(tmp_path), ann_file='infos.pkl')
    cfg = Config(dict(train_dataloader=dict(dataset=wrap(dataset)), data_command='make data'))
    with pytest.raises(UsageError, match=r'infos\.pkl, which does not exist.*: make data$'):
        check_data(cfg, 'train_dataloader')
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(dict(data_list=[{}])))
    check_data(cfg, 'train_dataloader', 'val_dataloader')


def test_an_old_info_file_is_refused_with_the_command_that_converts_it(tmp_path):
    dataset = dict(type='NuScenesDataset', data_root=str(tmp_path), ann_file='infos.pkl')
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(dict(infos=[], metadata={})))
    with pytest.raises(
        UsageError,
        match=rf'before 1\.1; .*create_data\.py {tmp_path} --update-infos {tmp_path}/infos\.pkl$',
    ):
        check_data(Config(dict(val_dataloader=dict(dataset=dataset))), 'val_dataloader')


def test_a_usage_error_ends_the_command_with_one_line(capsys):
    with pytest.raises(SystemExit) as end, exit_on_usage_error(make_parser('test')):
        raise UsageError('--seed: not this one')
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(': --seed: not this one\n')


def test_a_score_needs_the_tables_of_its_version(tmp_path):
    metainfo = dict(version='v1.0-trainval', classes=['car'])
    dataset = dict(
        type='NuScenesDataset', data_root=str(tmp_path), ann_file='infos.pkl', metainfo=metainfo
    )
    cfg = Config(dict(val_dataloader=dict(dataset=dataset)))
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(dict(data_list=[{}])))
    check_data(cfg, 'val_dataloader')  # not scored
    cfg.val_evaluator = dict(type='NuScenesMetric')
    (tmp_path / 'v1.0-mini').mkdir()
    (tmp_path / 'v1.0-mini' / 'sample_data.json').touch()
    with pytest.raises(
        UsageError, match=r'version=v1\.0-trainval: a score .* the versions there are v1\.0-mini;'
    ):
        check_data(cfg, 'val_dataloader')
    (tmp_path / 'v1.0-trainval').mkdir()
    check_data(cfg, 'val_dataloader')


@pytest.mark.parametrize(
    ('arguments', 'settings'),
    [
        ([], dict(dtype=None)),
        (['--dtype', 'bfloat16'], dict(dtype='bfloat16')),
        (['--no-fold'], None),
    ],
)
def test_inference_is_folded_unless_asked_otherwise(arguments, settings):
    parser = make_parser('test')
    add_inference_arguments(parser)
    assert inference_settings(parser.parse_args(['a.py', *arguments])) == settings
    with pytest.raises(SystemExit):
        parser.parse_args(['a.py', '--no-fold', '--dtype', 'bfloat16'])
