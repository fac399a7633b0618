"""Published weights are small, safe to read, and score as the run's own."""

import subprocess
import sys

import pytest
import torch
from torch import nn


@pytest.fixture
def run_checkpoint(tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    path = tmp_path / 'epoch_3.pth'
    torch.save(
        {
            'meta': {'epoch': 3, 'seed': 7, 'cfg': 'long text'},
            'state_dict': model.state_dict(),
            'optimizer': {'state': {}},
        },
        path,
    )
    return path


def publish(repo_root, *arguments):
    command = [sys.executable, repo_root / 'tools/publish_checkpoint.py', *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def test_what_is_kept(repo_root, run_checkpoint, tmp_path):
    out = tmp_path / 'weights.pth'
    assert publish(repo_root, run_checkpoint, out, '--note', 'mAP=0.5').returncode == 0
    published = torch.load(out, weights_only=True)
    assert published.keys() == {'meta', 'state_dict'}
    assert published['meta'] == {'epoch': 3, 'seed': 7, 'mAP': '0.5'}
    state, original = published['state_dict'], torch.load(run_checkpoint)['state_dict']
    assert state.keys() == original.keys()
    assert state._metadata == original._metadata
    assert state['1.num_batches_tracked'].dtype == torch.long
    torch.testing.assert_close(state['0.weight'].float(), original['0.weight'], rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ('checkpoint', 'note', 'message'),
    [
        ('absent.pth', 'a=b', 'absent.pth does not exist'),
        (None, 'novalue', 'novalue: give KEY=VALUE'),
    ],
)
def test_wrong_arguments(repo_root, run_checkpoint, tmp_path, checkpoint, note, message):
    result = publish(
        repo_root, checkpoint or run_checkpoint, tmp_path / 'weights.pth', '--note', note
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / 'weights.pth').exists()
