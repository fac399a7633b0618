"""Bridge attention: what its gates let through."""

import torch

from projects.cmt_aqr.planning.bridge_attention import BridgeAttention


def inputs():
    return torch.randn(2, 6, 16), torch.randn(2, 9, 16), torch.randn(2, 4, 16)


def bridge():
    return BridgeAttention(16, num_heads=4, feedforward_channels=32)


def test_gates_at_zero_leave_waypoints_without_the_detector():
    block = bridge()
    waypoints, objects, actions = inputs()
    out = block(waypoints, objects, actions)
    assert out.shape == waypoints.shape
    assert torch.equal(out, block(waypoints, -3 * objects, torch.zeros_like(actions)))


def test_each_gate_opens_its_own_source():
    waypoints, objects, actions = inputs()
    for gate, changed in (('object_gate', 1), ('action_gate', 2)):
        block = bridge()
        torch.nn.init.constant_(getattr(block, gate), 0.5)
        for source in (1, 2):
            other = [waypoints, objects, actions]
            other[source] = other[source] + 1
            same = torch.equal(block(waypoints, objects, actions), block(*other))
            assert same == (source != changed)


def test_a_gate_at_zero_learns():
    block = bridge()
    block(*inputs()).square().sum().backward()
    assert block.object_gate.grad != 0
    assert block.action_gate.grad != 0
