"""The L1 cost between box codes."""

import torch
from mmengine.structures import InstanceData

from projects.cmt_aqr.matching import BBox3DL1Cost


def test_weighted_l1_without_velocity():
    cost = BBox3DL1Cost(weight=0.5, code_weights=[2.0, *[1.0] * 7])
    predicted = InstanceData(codes=torch.zeros(2, 10))
    truth = InstanceData(codes=torch.stack([torch.ones(10), torch.zeros(10)]))
    truth.codes[1, 8:] = 100  # velocity does not take part
    assert cost(predicted, truth).tolist() == [[4.5, 0], [4.5, 0]]
