"""VoVNet against the published implementation's keys and numbers."""

import json
import runpy

import numpy as np
import pytest
import torch

from projects.cmt_aqr.backbones import VoVNet
from projects.cmt_aqr.backbones.vovnet import SPECS

PREFIX = 'img_backbone.'


def small(**kwargs) -> VoVNet:
    return VoVNet(spec_name='V-19-slim-eSE', width=0.125, **kwargs)


def test_equals_the_published_implementation(reference):
    expected = np.load(reference / 'vovnet_cpfpn_small.npz')
    model = VoVNet(spec_name='V-19-slim-eSE').eval()
    fill = runpy.run_path(str(reference / 'fill.py'))
    fill['fill_state_dict'](model, 3)
    with torch.no_grad():
        outputs = model(torch.from_numpy(expected['x']))
    assert len(outputs) == 2
    for name, output in zip(('stage4', 'stage5'), outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), expected[name], rtol=0, atol=1e-4)


def test_keys_and_shapes_of_v99(reference):
    listed = json.loads((reference / 'cmt_vov_state_dict.json').read_text())
    expected = {k[len(PREFIX) :]: v for k, v in listed.items() if k.startswith(PREFIX)}
    with torch.device('meta'):
        model = VoVNet(spec_name='V-99-eSE')
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == expected


@pytest.mark.parametrize('spec_name', sorted(SPECS))
def test_strides_and_channels_of_every_variant(spec_name):
    names = ('stem', 'stage2', 'stage3', 'stage4', 'stage5')
    model = VoVNet(spec_name=spec_name, width=0.125, out_features=names).eval()
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 96))
    strides = (4, 4, 8, 16, 32)
    expected = [
        (1, model.out_channels[n], 64 // s, 96 // s) for n, s in zip(names, strides, strict=True)
    ]
    assert [tuple(o.shape) for o in outputs] == expected


def test_published_widths():
    with torch.device('meta'):
        model = VoVNet(spec_name='V-19-slim-dw-eSE')
    expected = dict(stem=64, stage2=112, stage3=256, stage4=384, stage5=512)
    assert model.out_channels == expected
    keys = set(model.state_dict())
    assert 'stem.stem_2/dw_conv3x3.weight' in keys
    assert 'stage3.OSA3_1.conv_reduction.OSA3_1_reduction_0/conv.weight' in keys
    assert 'stage2.OSA2_1.conv_reduction.OSA2_1_reduction_0/conv.weight' not in keys


def test_nothing_is_computed_beyond_the_last_output():
    model = small(out_features=('stage3',))
    model(torch.zeros(1, 3, 32, 32))[0].sum().backward()
    assert model.stage3.OSA3_1.ese.fc.weight.grad is not None
    assert all(p.grad is None for p in model.stage4.parameters())
    assert not hasattr(small(out_features=('stage3',), num_stages=2), 'stage4')


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages(frozen_stages):
    model = small(frozen_stages=frozen_stages, norm_eval=False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.train()
    model(torch.randn(2, 3, 64, 64))
    for i, name in enumerate(('stem', *model.stage_names)):
        module = getattr(model, name)
        frozen = i <= frozen_stages
        assert {p.requires_grad for p in module.parameters()} == {not frozen}
        assert {m.training for m in module.modules()} == {not frozen}
        same = [
            torch.equal(v, before[f'{name}.{k}'])
            for k, v in module.state_dict().items()
            if k.endswith('running_mean')
        ]
        assert all(same) if frozen else not any(same)


def norm_modes(model: VoVNet) -> set[bool]:
    return {m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)}


def test_norm_eval_survives_train():
    assert norm_modes(small(norm_eval=True).train()) == {False}
    assert norm_modes(small(norm_eval=False).train()) == {True}
    assert small(norm_eval=True).train().stage2.OSA2_1.training


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(spec_name='V-99'), 'V-99-eSE'),
        (dict(out_features=('stage6',)), 'stage6'),
        (dict(out_features='stage4'), 'list'),
        (dict(out_features=()), 'one or more'),
        (dict(out_features=('stage5',), num_stages=3), 'stage5'),
        (dict(num_stages=5), 'num_stages 5'),
        (dict(frozen_stages=5), 'frozen_stages 5'),
        (dict(frozen_stages=-2), 'frozen_stages -2'),
    ],
)
def test_wrong_arguments_name_the_value(arguments, message):
    with pytest.raises(ValueError, match=message):
        VoVNet(**{'spec_name': 'V-19-slim-eSE', **arguments})
