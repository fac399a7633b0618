"""Faults of the command line are found early, and the messages name the remedy."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict

from projects.cmt_aqr import entry


def read(path: Path, *arguments: str) -> Config:
    return entry.read_config(entry.make_parser('test').parse_args([str(path), *arguments]))


@pytest.fixture
def config_file(tmp_path) -> Path:
    path = tmp_path / 'plain.py'
    path.write_text(
        "lr = 1\nrandomness = dict(seed=5)\ncustom_hooks = [dict(type='RunInfoHook')]\n"
    )
    return path


def test_arguments_change_the_config(config_file):
    options = ['--work-dir', 'there', '--seed', '7', '--deterministic', '--cfg-options', 'lr=2']
    cfg = read(config_file, *options)
    assert (cfg.work_dir, cfg.lr) == ('there', 2)
    assert cfg.randomness == dict(seed=7, deterministic=True)


def test_what_is_not_given_stays_as_in_the_config(config_file):
    cfg = read(config_file)
    assert (cfg.work_dir, cfg.lr, cfg.launcher) == ('work_dirs/plain', 1, 'none')
    assert cfg.randomness == dict(seed=5)


def test_a_run_has_the_hooks_of_its_config_and_no_others(config_file):
    assert read(config_file).custom_hooks == [dict(type='RunInfoHook')]
    config_file.write_text('lr = 1\n')
    assert 'custom_hooks' not in read(config_file)


def test_settings_without_effect_are_named_with_what_stands_for_them(config_file):
    config_file.write_text('lr_config = dict(policy="cyclic")\nevaluation = dict(interval=1)\n')
    with pytest.raises(entry.UsageError) as error:
        read(config_file)
    assert str(error.value) == (
        f'config {config_file}: lr_config is of MMDetection3D 0.x and has no effect: use '
        'param_scheduler, with every end as a ratio (eta_min_ratio); evaluation is of '
        'MMDetection3D 0.x and has no effect: use val_evaluator, and '
        'train_cfg=dict(val_interval=...)'
    )


def test_missing_config_is_named_with_the_nearest_one():
    with pytest.raises(entry.UsageError, match=r'did you mean configs/cmt/cmt_tiny_synthetic\.py'):
        read(Path('configs/cmt/cmt_tiny_sinthetic.py'))
    with pytest.raises(entry.UsageError, match=r'config zzz\.py does not exist \(in '):
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
    with pytest.raises(entry.UsageError, match=r'infos\.pkl, which does not exist.*: make data$'):
        entry.check_data(cfg, 'train_dataloader')
    (tmp_path / 'infos.pkl').touch()
    entry.check_data(cfg, 'train_dataloader', 'val_dataloader')


def test_an_old_info_file_is_refused_with_the_command_that_converts_it(tmp_path):
    dataset = dict(type='NuScenesDataset', data_root=str(tmp_path), ann_file='infos.pkl')
    (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(dict(infos=[], metadata={})))
    with pytest.raises(
        entry.UsageError,
        match=rf'before 1\.1; .*create_data\.py {tmp_path} --update-infos {tmp_path}/infos\.pkl$',
    ):
        entry.check_data(Config(dict(val_dataloader=dict(dataset=dataset))), 'val_dataloader')


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(entry.UsageError, match=r'checkpoint .*none\.pth does not exist'):
        entry.check_checkpoint(str(tmp_path / 'none.pth'))
    entry.check_checkpoint('https://example.com/weights.pth')
    (tmp_path / 'some.pth').touch()
    entry.check_checkpoint(str(tmp_path / 'some.pth'))


@pytest.mark.parametrize(
    ('name', 'failure'),
    [
        (entry.DROPS['lidar'], dict(type='LidarDrop', severity=1, seed=0)),
        (entry.DROPS['camera'], dict(type='CameraDrop', severity=1, seed=0)),
        ('fog_2', dict(type='Fog', severity=2, seed=0)),
        ('fog', dict(type='Fog', severity=1, seed=0)),
    ],
)
def test_failures_have_the_names_of_the_robustness_test(repo_root, name, failure):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    assert entry.find_failure(cfg, name) == failure


def test_an_unknown_failure_is_named_with_the_nearest(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    with pytest.raises(entry.UsageError, match=r'--failure fog_4: .*did you mean fog_\d'):
        entry.find_failure(cfg, 'fog_4')


def test_a_sensor_that_is_not_loaded_cannot_be_dropped(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_lidar_voxel0075_cbgs.py')
    with pytest.raises(entry.UsageError, match=r'CameraDrop: .*cbgs\.py loads no camera data'):
        entry.add_failure(cfg, dict(type='CameraDrop'))


def test_a_failure_stands_before_everything_else(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    before = list(cfg.test_dataloader.dataset.pipeline)
    entry.add_failure(cfg, dict(type='LidarDrop'))
    entry.add_failure(cfg, dict(type='Fog', severity=2))
    after = cfg.test_dataloader.dataset.pipeline
    assert after == [dict(type='Fog', severity=2), dict(type='LidarDrop'), *before]


@pytest.mark.parametrize('nested', [False, True])
def test_loaders_that_apply_no_failure_are_named_with_those_that_do(repo_root, nested):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    loader = ConfigDict(type='LoadPointsFromMultiSweeps', sweeps_num=3)
    if nested:
        loader = ConfigDict(type='Other', transforms=[loader])
    cfg.test_dataloader.dataset.pipeline[1] = loader
    with pytest.raises(
        entry.UsageError,
        match=r'LidarDrop: .*that apply no failure; .*: LoadPointsOfSweeps for LoadPointsFromMulti',
    ):
        entry.add_failure(cfg, dict(type='LidarDrop'))


END = """
import atexit
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from projects.cmt_aqr.entry import end_processes

rank, store = sys.argv[1:]
end_processes()  # nothing to leave
torch.distributed.init_process_group(
    'gloo', init_method='file://' + store, rank=int(rank), world_size=2
)
model = DistributedDataParallel(torch.nn.Linear(4, 4))  # keeps gloo's threads
work = [torch.distributed.all_reduce(torch.ones(1000), async_op=True) for _ in range(200)]
atexit.register(print, 'last words', end='')
end_processes()
print('never said')
"""


def test_processes_end_well_while_threads_of_gloo_are_at_work(tmp_path, repo_root):
    def start(rank: int) -> subprocess.Popen:
        command = [sys.executable, '-c', END, str(rank), str(tmp_path / 'store')]
        return subprocess.Popen(
            command, cwd=repo_root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    for process in [start(rank) for rank in range(2)]:
        said, errors = process.communicate()
        assert (process.returncode, said) == (0, 'last words'), errors


def test_denormals_are_zero_on_every_thread():
    code = (
        'import torch\n'
        'from projects.cmt_aqr.entry import flush_denormals\n'
        'flush_denormals()\n'
        'torch.set_num_threads(2)\n'
        'small = torch.full((1_000_000,), 1e-30)\n'
        'print((small * 1e-10).count_nonzero().item())'
    )
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert shown.stdout == '0\n'


def config_of_wrapper(**wrapper: object) -> Config:
    return Config(dict(optim_wrapper=dict(type='OptimWrapper', clip_grad=None, **wrapper)))


@pytest.mark.parametrize(
    ('has_gpu', 'given', 'expected'),
    [
        (True, {}, dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        (
            True,
            dict(dtype='bfloat16', loss_scale=512.0),
            dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=512.0),
        ),
        (False, {}, dict(type='BFloat16OptimWrapper')),
        (False, dict(dtype='bfloat16', loss_scale=512.0), dict(type='BFloat16OptimWrapper')),
    ],
)
def test_mixed_precision_by_machine(monkeypatch, has_gpu, given, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: has_gpu)
    cfg = config_of_wrapper(**given)
    entry.use_mixed_precision(cfg)
    assert cfg.optim_wrapper == dict(expected, clip_grad=None)


def test_mixed_precision_that_cannot_be_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(entry.UsageError, match='--amp in float16 needs a GPU; on a CPU'):
        entry.use_mixed_precision(config_of_wrapper(dtype='float16'))
    cfg = Config(dict(optim_wrapper=dict(type='ApexOptimWrapper')))
    with pytest.raises(entry.UsageError, match='OptimWrapper, not ApexOptimWrapper'):
        entry.use_mixed_precision(cfg)
