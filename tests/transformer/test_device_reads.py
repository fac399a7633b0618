"""The router and the decoder: what they read from the device, and that all is on it."""

from contextlib import nullcontext

import pytest
import torch
from device_reads import DeviceReads
from torch._subclasses.fake_tensor import FakeTensorMode

from projects.cmt_aqr.aqr import (
    AQRWeightGenerator,
    AttentionBiasGenerator,
    FeatureScaling,
    ReliabilityLoss,
    TokenLayout,
    bev_windows,
    camera_windows,
)
from projects.cmt_aqr.geometry import project
from projects.cmt_aqr.transformer import CmtTransformer

QUERIES, CHANNELS, DENOISING = 7, 16, 2
LAYOUT = TokenLayout(bev=(6, 8), image=(4, 6), num_cameras=3)
TOKENS = 6 * 8 + 3 * 4 * 6
RANGE = (-8.0, -6.0, -3.0, 8.0, 6.0, 3.0)

FORMS = {
    'add': ({}, ['folded', 'grouped', 'dense']),
    'add per layer': ({'scales': 'per_layer'}, ['grouped']),
    'local': ({'scope': 'local'}, ['window', 'dense']),
    'both': ({'scope': 'both', 'window': 'gaussian'}, ['window', 'dense']),
    'gate': ({'form': 'gate'}, ['grouped', 'window', 'dense']),
    'mix': ({'form': 'mix'}, ['grouped', 'dense']),
    'hard': ({'form': 'hard'}, ['folded', 'grouped']),
}
CASES = [
    pytest.param(options, backend, id=f'{form}-{backend}')
    for form, (options, backends) in FORMS.items()
    for backend in backends
]
every_form = pytest.mark.parametrize(('options', 'backend'), CASES)


class Model:
    """Router and decoder of tiny size."""

    def __init__(self, options, backend, *, groups='modality', num_layers=2, batch_size=2):
        self.batch_size, self.groups = batch_size, groups
        hard = options.get('form') == 'hard'
        self.router = AQRWeightGenerator(
            CHANNELS,
            groups='modality' if hard else groups,
            activation='none' if hard else 'tanh',
            num_heads=2,
            feedforward_channels=8,
        )
        self.generator = AttentionBiasGenerator(num_heads=2, num_layers=num_layers, **options)
        self.scaling = FeatureScaling()
        self.decoder = CmtTransformer(
            CHANNELS,
            num_layers=num_layers,
            num_heads=2,
            feedforward_channels=8,
            attention=backend,
        )
        self.reliability = ReliabilityLoss(activation=self.router.activation)

    def to(self, device):
        for module in (self.router, self.generator, self.scaling, self.decoder):
            module.to(device)
        return self

    def inputs(self, device='cpu'):
        """Made before anything is counted; two of the cameras of the last sample are absent."""
        batch = self.batch_size
        present = torch.ones(batch, 3, dtype=torch.bool)
        present[-1, 1:] = False
        lidar = torch.ones(batch, 48, dtype=torch.bool)
        token_present = torch.cat([lidar, present.repeat_interleave(24, dim=1)], dim=1)
        self_mask = torch.arange(QUERIES) >= DENOISING
        inputs = {
            'query_pos': torch.randn(batch, QUERIES, CHANNELS),
            'tokens': torch.randn(batch, TOKENS, CHANNELS),
            'token_pos': torch.randn(batch, TOKENS, CHANNELS),
            'points': torch.rand(batch, QUERIES, 3) * 8 - 4,
            'lidar2img': torch.randn(batch, 3, 4, 4) + 20 * torch.eye(4),
            'present': present,
            'token_present': token_present,
            'self_mask': self_mask.expand(QUERIES, QUERIES) | torch.eye(QUERIES).bool(),
            'health': torch.rand(batch, TOKENS),
        }
        return {name: x.to(device) for name, x in inputs.items()}

    def windows(self, inputs):
        points = inputs['points']
        projection = project(points, inputs['lidar2img'], (32, 48))
        return [
            bev_windows(points, LAYOUT, size=3, point_cloud_range=RANGE, cell_size=(2.0, 2.0)),
            camera_windows(projection, inputs['present'], LAYOUT, size=2, image_shape=(32, 48)),
        ]

    def step(self, inputs, windows):
        """Forward and backward, with every part of the router, as in the head."""
        query_pos, tokens, token_pos = (inputs[n] for n in ('query_pos', 'tokens', 'token_pos'))
        present = inputs['token_present']
        weights = self.router(
            query_pos,
            tokens + token_pos,
            tokens,
            layout=LAYOUT,
            windows=windows,
            present=inputs['present'],
        )
        groups = LAYOUT.groups(self.router.groups, query_pos.device)
        scaled = self.scaling(
            tokens, weights, windows=windows, layout=LAYOUT, denoising_slots=DENOISING
        )
        routing = self.generator(weights, groups=groups, windows=windows)
        out = self.decoder(
            query_pos,
            tokens=scaled,
            token_pos=token_pos,
            self_mask=inputs['self_mask'],
            routing=routing,
            present=present,
        )
        loss = self.reliability(
            weights,
            inputs['health'],
            windows=windows,
            groups=groups,
            present=present,
            denoising_slots=DENOISING,
        )
        (out.square().sum() + loss).backward()


@every_form
@pytest.mark.parametrize(
    ('groups', 'num_layers', 'batch_size'), [('modality', 1, 2), ('camera', 2, 3)]
)
def test_a_step_reads_the_visible_pairs_alone(options, backend, groups, num_layers, batch_size):
    model = Model(options, backend, groups=groups, num_layers=num_layers, batch_size=batch_size)
    inputs = model.inputs()
    with DeviceReads() as device:
        model.step(inputs, model.windows(inputs))
    assert device.reads == {'nonzero': 1}


@pytest.fixture
def no_autocast(monkeypatch):
    """``torch.autocast`` does not know the device ``meta``, even to be switched off there."""
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())


@every_form
@pytest.mark.usefixtures('no_autocast')
def test_all_is_on_the_device(options, backend):
    """On ``meta`` a tensor that was made on the CPU by mistake shows."""
    model = Model(options, backend, groups='camera', num_layers=1)
    windows = [type(part)(*(x.to('meta') for x in part)) for part in model.windows(model.inputs())]
    model.to('meta')
    inputs = model.inputs('meta')
    with DeviceReads('meta') as device:
        model.step(inputs, windows)
    assert device.reads == {}
    assert all(p.grad.device.type == 'meta' for p in model.decoder.parameters())


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_all_is_on_the_device_in_half_precision(dtype):
    model = Model({'form': 'mix'}, 'grouped').to('meta')
    model.decoder.to(dtype)
    inputs = model.inputs('meta')
    query_pos, tokens, token_pos = (
        inputs[name].to(dtype) for name in ('query_pos', 'tokens', 'token_pos')
    )
    weights = torch.zeros(2, QUERIES, 2, device='meta')
    with DeviceReads('meta') as device:
        groups = LAYOUT.groups('modality', 'meta')
        routing = model.generator(weights, groups=groups, windows=())
        out = model.decoder(query_pos, tokens=tokens, token_pos=token_pos, routing=routing)
        out.sum().backward()
    assert device.reads == {}
    assert out.dtype == dtype


@pytest.mark.parametrize(
    'device',
    [
        'cpu',
        pytest.param(
            'cuda',
            marks=pytest.mark.skipif(
                not torch.backends.cuda.is_built(),
                reason='fake tensors of device cuda need a build of torch with CUDA',
            ),
        ),
    ],
)
@pytest.mark.parametrize(
    ('options', 'backend'), [({'scope': 'both'}, 'window'), ({'form': 'mix'}, 'grouped')]
)
def test_a_step_without_data(options, backend, device):
    """On fake tensors every operation checks devices and types, and none can read a value."""
    windows = Model(options, backend).windows(Model(options, backend).inputs())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with torch.device(device):
            model = Model(options, backend, num_layers=1)
        windows = [type(part)(*(mode.from_tensor(x).to(device) for x in part)) for part in windows]
        model.step(model.inputs(device), windows)
    assert all(p.grad.device.type == device for p in model.decoder.parameters())


def test_what_is_counted():
    x = torch.arange(6.0)
    with DeviceReads() as device:
        x.sum().item()
        x[x > 2]
        x.nonzero()
        bool((x > 0).any())
        x.to('meta')
    assert device.reads == {
        '_local_scalar_dense': 2,
        'index by a mask': 1,
        'nonzero': 1,
        'copy': 1,
    }
    elsewhere, place = x.to('meta'), torch.arange(2)
    with pytest.raises(AssertionError, match=r'index.Tensor works on'), DeviceReads('meta'):
        elsewhere[place]
