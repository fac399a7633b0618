"""Losses of single modules reach those of the run once."""

import copy

import torch
from torch import nn

from projects.cmt_aqr.auxiliary_losses import take_auxiliary_losses


def test_losses_are_summed_by_name_and_removed():
    model = nn.ModuleList([nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1))])
    model[0].auxiliary_losses = {'loss_a': torch.tensor(1.0)}
    model[1][0].auxiliary_losses = {'loss_a': torch.tensor(2.0), 'loss_b': torch.tensor(4.0)}
    assert take_auxiliary_losses(model) == {'loss_a': 3, 'loss_b': 4}
    assert take_auxiliary_losses(model) == {}
    copy.deepcopy(model)  # impossible with tensors of a graph
