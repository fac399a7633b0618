"""The log of a gate's choices, and the warning of dead experts."""

import logging

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor
from toy_runner import ToyModel, make_runner

from projects.cmt_aqr.hooks import ChoiceLogHook
from projects.cmt_aqr.necks import ChoiceCounter


class Choosing(ToyModel):
    """A model that always gives its first two options the same shares."""

    def __init__(self, option: str, shares: list[int]) -> None:
        super().__init__()
        self.gate = ChoiceCounter(option, len(shares))
        self.shares = torch.tensor(shares)

    def forward(self, inputs: Tensor, data_samples: Tensor, mode: str = 'tensor'):
        if mode == 'loss':
            self.gate.add(self.shares)
        return super().forward(inputs, data_samples, mode)


def train(tmp_path, monkeypatch, option: str, shares: list[int]) -> tuple[dict, list[str]]:
    warnings = []
    monkeypatch.setattr(
        MMLogger,
        'handle',
        lambda logger, record: (
            record.levelno == logging.WARNING and warnings.append(record.getMessage())
        ),
    )
    hooks = [ChoiceLogHook(interval=2)]
    runner = make_runner(tmp_path, model=Choosing(option, shares), custom_hooks=hooks, epochs=2)
    runner.train()
    scalars = runner.message_hub.log_scalars
    found = {name: value.data for name, value in scalars.items() if f'train/{option}_' in name}
    return found, [message for message in warnings if 'equal load' in message]


def test_shares_are_logged(tmp_path, monkeypatch):
    found, warnings = train(tmp_path, monkeypatch, 'expert', [3, 1])
    values = {name: value[0].tolist() for name, value in found.items()}
    assert values == {'train/expert_0': [0.75, 0.75], 'train/expert_1': [0.25, 0.25]}
    assert warnings == []


def test_dead_experts_are_named_once(tmp_path, monkeypatch):
    _, warnings = train(tmp_path, monkeypatch, 'expert', [1000, 0, 20])
    assert len(warnings) == 1
    assert 'experts 1, 2 of' in warnings[0]
    assert 'raise its balance_weight or noise' in warnings[0]


def test_layers_that_are_never_chosen_are_no_fault(tmp_path, monkeypatch):
    found, warnings = train(tmp_path, monkeypatch, 'layer', [4, 0])
    assert len(found) == 2
    assert warnings == []


def test_wrong_interval():
    with pytest.raises(ValueError, match='interval 0 starts at 1'):
        ChoiceLogHook(interval=0)
