"""A config of this project trained and scored by MMDetection3D's own tools/train.py and test.py."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mmdet3d
import pytest
import torch

pytestmark = pytest.mark.slow

TOOLS = Path(mmdet3d.__file__).parent / '.mim/tools'
# The scales have no room at all, so that weight decay alone takes them out of their range.
SCALE = 2.5
CONFIG = """
_base_ = ['{root}/configs/cmt_aqr/cmt_aqr_tiny_synthetic_failures_bias.py']

custom_imports = dict(imports=['projects.cmt_aqr', 'seen_samples'], allow_failed_imports=False)
custom_hooks = [*_base_.custom_hooks, dict(type='SeenSamples')]
model = dict(
    pts_bbox_head=dict(aqr=dict(routing=dict(scale_range=({scale}, {scale}))))
)
data = dict(data_root='{data}')
train_dataloader = dict(
    batch_size=2, num_workers=1, persistent_workers=True, dataset=dict(data, indices=4)
)
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = val_evaluator = val_cfg = None
load_from = '{root}/projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
"""
# It keeps the health of the samples of each epoch, by their tokens.
SEEN_SAMPLES = """
import json
from pathlib import Path

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from projects.cmt_aqr.datasets.failures import DrawIndex
from projects.cmt_aqr.hooks.pipelines import transforms_of


@HOOKS.register_module()
class SeenSamples(Hook):
    def __init__(self):
        self.epochs = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        (index,) = transforms_of(runner.train_dataloader.dataset, DrawIndex)
        epoch = self.epochs.setdefault(runner.epoch, dict(draw=int(index._epoch), health={}))
        health = data_batch['inputs']['health']
        for index, sample in enumerate(data_batch['data_samples']):
            means = [float(maps[index].mean()) for maps in health.values()]
            epoch['health'][sample.token] = means

    def after_train(self, runner):
        Path(runner.work_dir, 'seen.json').write_text(json.dumps(self.epochs))
"""


@pytest.fixture(scope='module')
def run(tmp_path_factory, repo_root, synthetic_root):
    """Run a tool of MMDetection3D in a folder with the config; its work dir is ``run``."""
    folder = tmp_path_factory.mktemp('mmdet3d')
    config = CONFIG.format(root=repo_root, data=synthetic_root, scale=SCALE)
    (folder / 'mine.py').write_text(config)
    (folder / 'seen_samples.py').write_text(SEEN_SAMPLES)

    def run(tool: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, str(TOOLS / tool), 'mine.py', *arguments, '--work-dir', 'run'],
            cwd=folder,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                'PYTHONPATH': f'{repo_root}{os.pathsep}{folder}',
                'OMP_WAIT_POLICY': 'passive',
            },
        )

    run.folder = folder
    return run


@pytest.fixture(scope='module')
def trained(run) -> Path:
    """The work dir of a training of two epochs, two steps each."""
    answer = run('train.py')
    assert answer.returncode == 0, answer.stderr[-3000:]
    return run.folder / 'run'


def test_what_is_frozen_is_audited_and_the_run_described(trained):
    (report,) = trained.glob('*/freeze_audit.json')
    audit = json.loads(report.read_text())
    assert audit['state'] == 'passed'
    assert audit['values_equal_at_end'] is True
    assert audit['frozen_parameters'] > 0
    assert json.loads((report.parent / 'run_info.json').read_text())['versions']['cmt_aqr']


def test_each_epoch_draws_other_failures(trained):
    first, second = json.loads((trained / 'seen.json').read_text()).values()
    assert (first['draw'], second['draw']) == (0, 1)
    assert first['health'].keys() == second['health'].keys()
    assert first['health'] != second['health']


def test_scales_are_kept_in_their_range(trained):
    state = torch.load(trained / 'epoch_2.pth', weights_only=False)['state_dict']
    (scale,) = (v for name, v in state.items() if name.endswith('bias_scale'))
    assert torch.equal(scale, torch.full_like(scale, SCALE))


def test_it_is_scored(run, trained):
    answer = run('test.py', 'run/epoch_2.pth')
    assert answer.returncode == 0, answer.stderr[-3000:]
    infos = [json.loads(path.read_text()) for path in trained.glob('*/run_info.json')]
    (scores,) = (info['scores'] for info in infos if info['scores'])
    assert any('NDS' in name for name in scores[0])


def test_without_the_hooks_the_training_is_refused(run):
    answer = run('train.py', '--cfg-options', 'custom_hooks=[]')
    assert answer.returncode == 1
    assert "add dict(type='DrawIndexHook') to the custom_hooks of the config" in answer.stderr
