"""A planner that learns from recorded states of the detector, which stays as it is."""

import copy
import shutil

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from test_detector import batch, cloud

from benchmarks.planning import record_states, train_on_states
from benchmarks.planning.record_states import check, record
from benchmarks.planning.train_on_states import fit, plan, read
from projects.cmt_aqr.data_preparation.ego_futures import add_ego_futures
from projects.cmt_aqr.usage_error import UsageError

PLANNER = dict(
    type='ActionQueryHead', num_queries=3, num_heads=2, feedforward_channels=32, reads='objects'
)


class Loader(list):
    dataset = None


@pytest.fixture
def detector(repo_root):
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    model = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_plan.py').model
    return MODELS.build({**model, 'planner': PLANNER})


@pytest.fixture
def loader():
    torch.manual_seed(0)
    raw = batch([cloud() for _ in range(2)], (1,) * 2, (2,) * 2)
    raw['inputs']['ego'] = dict(
        waypoints=[*torch.rand(2, 6, 3)],
        mask=[torch.ones(6)] * 2,
        status=[*torch.rand(2, 2)],
        command=[*torch.eye(3)[:2]],
    )
    return Loader([raw])


def test_plans_of_recorded_states_are_those_of_the_detector(detector, loader):
    for name, parameter in detector.planner.named_parameters():
        if name.endswith('_gate') or name.startswith('to_step'):
            parameter.data.fill_(0.5)
    states = record(detector, copy.deepcopy(loader))
    data = detector.data_preprocessor(loader[0], False)
    with torch.no_grad():
        plans = torch.stack([sample.ego_plan for sample in detector(**data, mode='predict')])
        recorded = plan(detector.planner, states)
    assert states['hidden'].dtype == torch.float16
    torch.testing.assert_close(recorded, plans, atol=1e-2, rtol=1e-2)


def test_only_the_planner_learns(detector, loader):
    states = record(detector, loader)
    before = copy.deepcopy(detector.state_dict())
    optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
    fit(detector, states, optim_wrapper, steps=100, batch_size=2)
    moved = {k for k, v in detector.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert all(name.startswith('planner.') for name in moved)
    with torch.no_grad():
        error = (plan(detector.planner, states) - states['waypoints']).abs().mean()
    assert error < 0.5 * states['waypoints'].abs().mean()


def test_states_that_differ_between_epochs_are_refused(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_streets_plan.py')
    cfg.load_from = str(repo_root / cfg.load_from)
    check(cfg)
    for change, message in (
        ({'model.planner.reads': 'tokens'}, r'reads=objects'),
        ({'train_dataloader.dataset.pipeline': [dict(type='DrawIndex')]}, 'set variants'),
        ({'load_from': None}, 'the load_from of its detector'),
        ({'model.planner': None}, r'a model\.planner'),
    ):
        other = Config(cfg.to_dict())
        other.merge_from_dict(change)
        with pytest.raises(UsageError, match=message):
            check(other)


def test_states_of_several_files_of_one_detector(tmp_path):
    files = [tmp_path / 'a.pth', tmp_path / 'b.pth']
    for index, file in enumerate(files):
        states = dict(hidden=torch.full((2, 1), index), mask=torch.ones(2, 6))
        torch.save(dict(detector='cmt.pth', states=states), file)
    states = read(files, 'cmt.pth')
    assert states['hidden'].flatten().tolist() == [0, 0, 1, 1]
    assert states['mask'].shape == (4, 6)
    with pytest.raises(UsageError, match=r'a\.pth has the states of cmt\.pth, and load_from is'):
        read(files, 'other.pth')
    with pytest.raises(UsageError, match=r'c\.pth does not exist; .*record_states'):
        read([*files, tmp_path / 'c.pth'], 'cmt.pth')


def test_the_commands_make_a_checkpoint_of_the_config(synthetic_root, repo_root, tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    for entry in synthetic_root.iterdir():
        (root / entry.name).symlink_to(entry)
    infos = root / 'nuscenes_infos_train.pkl'
    infos.unlink()
    shutil.copy(synthetic_root / infos.name, infos)
    add_ego_futures(root, [infos], version='v1.0-mini')
    config = str(repo_root / 'configs/cmt/cmt_tiny_streets_plan.py')
    states = str(tmp_path / 'states.pth')
    weights = repo_root / 'projects/cmt_aqr/weights/cmt_tiny_streets_failures.pth'
    options = ['--seed', '3', '--work-dir', str(tmp_path / 'run'), '--cfg-options']
    options += [f'data_root={root}/', f'load_from={weights}', 'feature_cache=None']
    options += ['train_dataloader.num_workers=0']
    record_states.main(record_states.make_parser().parse_args([config, states, *options]))
    assert len(torch.load(states)['states']['mask']) == 6
    given = [config, states, '--steps', '2', '--batch-size', '4', *options]
    train_on_states.main(train_on_states.make_parser().parse_args(given))
    made = torch.load(tmp_path / 'run/planner.pth', weights_only=False)
    assert (made['meta']['seed'], made['meta']['epoch']) == (3, 1)
    shipped = torch.load(weights, weights_only=True)['state_dict']
    planner = {k for k in made['state_dict'] if k not in shipped}
    assert planner
    assert all(name.startswith('planner.') for name in planner)
    assert all(torch.equal(made['state_dict'][k], v.float()) for k, v in shipped.items())
