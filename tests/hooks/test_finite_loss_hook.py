"""A loss that is not finite stops the run, and the error says where it came from."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.structures import BaseDataElement

from projects.cmt_aqr.hooks import FiniteLossHook

BATCH = {
    'data_samples': [
        BaseDataElement(metainfo=dict(token='a1b2', sample_idx=0)),
        BaseDataElement(metainfo=dict(sample_idx=7)),
        BaseDataElement(),
    ]
}


@pytest.fixture
def check(tmp_path):
    """Show outputs to the hook."""
    runner = SimpleNamespace(epoch=2, iter=41, log_dir=str(tmp_path))

    def check(**outputs) -> None:
        FiniteLossHook().after_train_iter(runner, 0, BATCH, outputs)

    return check


def test_finite_losses_pass(check):
    check(loss=torch.tensor(3.0), loss_cls=torch.tensor(3.0), grad_norm=torch.tensor(torch.inf))


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
def test_error_lists_every_part_and_every_sample(check, value):
    with pytest.raises(FloatingPointError) as error:
        check(loss=torch.tensor(value), loss_cls=torch.tensor(0.5), loss_bbox=torch.tensor(value))
    message = str(error.value)
    assert 'epoch 3, iteration 42' in message
    assert 'loss_cls: 0.5' in message
    assert f'loss_bbox: {value:g}' in message
    assert 'samples: a1b2, 7, unnamed' in message


def test_a_part_counts_even_if_the_sum_is_finite(check):
    with pytest.raises(FloatingPointError, match=r'd0\.loss_cls: nan'):
        check(**{'loss': torch.tensor(1.0), 'd0.loss_cls': torch.tensor(torch.nan)})


def test_the_content_of_the_error_is_written(check, tmp_path):
    with pytest.raises(FloatingPointError, match=r'kept in .*not_finite_rank0\.json'):
        check(loss=torch.tensor(torch.inf), loss_cls=torch.tensor(0.5))
    assert json.loads((tmp_path / 'not_finite_rank0.json').read_text()) == {
        'what': 'the loss is not finite',
        'epoch': 3,
        'iteration': 42,
        'samples': ['a1b2', '7', 'unnamed'],
        'losses': {'loss': float('inf'), 'loss_cls': 0.5},
        'gradients': {},
    }


def test_no_outputs_is_no_error(check):
    check()
