"""CPFPN against the published implementation's numbers."""

import runpy

import numpy as np
import pytest
import torch

from projects.cmt_aqr.necks import CPFPN


def test_equals_the_published_implementation(reference):
    expected = np.load(reference / 'vovnet_cpfpn_small.npz')
    neck = CPFPN(in_channels=[384, 512], out_channels=64, num_outs=2).eval()
    runpy.run_path(str(reference / 'fill.py'))['fill_state_dict'](neck, 3)
    with torch.no_grad():
        outputs = neck([torch.from_numpy(expected[name]) for name in ('stage4', 'stage5')])
    assert len(outputs) == 2
    for name, output in zip(('p0', 'p1'), outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), expected[name], rtol=0, atol=1e-4)


def test_keys():
    neck = CPFPN(in_channels=[8, 16, 32], out_channels=4, num_outs=3)
    assert sorted(neck.state_dict()) == [
        'fpn_convs.0.conv.bias',
        'fpn_convs.0.conv.weight',
        *(f'lateral_convs.{i}.conv.{part}' for i in range(3) for part in ('bias', 'weight')),
    ]


def test_every_parameter_serves_the_first_level():
    neck = CPFPN(in_channels=[8, 16], out_channels=4, num_outs=2)
    neck([torch.ones(1, 8, 4, 4), torch.ones(1, 16, 2, 2)])[0].sum().backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_extra_levels_are_pooled_and_extra_convs_refused():
    neck = CPFPN(in_channels=[8, 16], out_channels=4, num_outs=3)
    outputs = neck([torch.ones(1, 8, 8, 8), torch.ones(1, 16, 4, 4)])
    assert [tuple(o.shape) for o in outputs] == [(1, 4, 8, 8), (1, 4, 4, 4), (1, 4, 2, 2)]
    with pytest.raises(ValueError, match='add_extra_convs'):
        CPFPN(in_channels=[8, 16], out_channels=4, num_outs=3, add_extra_convs=True)
