"""Partly frozen sparse encoders learn on CUDA as they do on a CPU.

spconv differentiates sparse convolutions on a CPU whatever their mode; on CUDA only those that run
as in training. :func:`cuda_rules` brings the rules of CUDA to a CPU.
"""

import itertools
from collections.abc import Callable

import pytest
import torch
from freezable import names_below, sparse_encoder, trainable
from mmdet3d.models import SparseEncoder
from spconv.pytorch import SparseConvTensor
from spconv.pytorch.conv import SparseConvolution
from torch import Tensor, nn

from projects.cmt_aqr import compat
from projects.cmt_aqr.backbones import CmtSparseEncoder
from projects.cmt_aqr.freezing import FreezePolicy, add_fast_path, freeze

NUM_LAYERS = 5  # four stages and the output convolution
SETTINGS = [
    {},
    *(dict(frozen_stages=n) for n in range(NUM_LAYERS + 1)),
    *(dict(freeze_layers=[n]) for n in range(NUM_LAYERS)),
    *(dict(freeze_layers=pair) for pair in itertools.combinations(range(NUM_LAYERS), 2)),
    *(dict(unfreeze_layers=[n]) for n in range(NUM_LAYERS)),
    dict(freeze_ratio=0.5),
    dict(unfreeze_layers=()),
    dict(norm_eval=True),
    dict(frozen=True, norm_eval=True),
    dict(frozen=True, always_trainable=['conv_input']),
    dict(frozen_stages=2, always_trainable=['encoder_layer1.0']),
    dict(freeze_layers=[3], always_trainable=['conv_input', 'encoder_layer4.0']),
]


def cuda_rules(conv_forward: Callable) -> Callable:
    """``_conv_forward`` on a CPU by the rules that spconv 2.3.8 has for CUDA (``conv.py``).

    Evaluation mode is outside of autograd, and gives a submanifold convolution no backward pairs;
    a backward pass without them is refused here.
    """

    def run(module, training, input, weight, bias, *args, **kwargs) -> SparseConvTensor:
        shared = input.find_indice_pair(module.indice_key)
        needs_pairs = training and torch.is_grad_enabled() and input.features.requires_grad
        if needs_pairs and shared is not None and not shared.has_backward:
            raise RuntimeError(f'no backward pairs under {module.indice_key!r}')
        with torch.set_grad_enabled(training and torch.is_grad_enabled()):
            out = conv_forward(module, training, input, weight, bias, *args, **kwargs)
        if shared is None and module.indice_key is not None:
            pairs = out.find_indice_pair(module.indice_key)
            pairs.has_backward = not module.subm or training
        return out

    return run


@pytest.fixture
def on_cuda(monkeypatch):
    """The rules of CUDA, under the patches of this project."""
    plain = SparseConvolution._conv_forward.__wrapped__
    monkeypatch.setattr(SparseConvolution, '_conv_forward', cuda_rules(plain))
    compat.differentiate_spconv_in_evaluation_mode()


@pytest.fixture
def on_unpatched_cuda(monkeypatch):
    """The rules of CUDA alone."""
    plain = SparseConvolution._conv_forward.__wrapped__
    monkeypatch.setattr(SparseConvolution, '_conv_forward', cuda_rules(plain))


def voxels() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    limits = (2, 41, 16, 16)
    coors = torch.stack(
        [torch.randint(high, (120,), generator=generator) for high in limits], dim=1
    ).unique(dim=0)
    return torch.randn(len(coors), 4, generator=generator), coors.int()


def gradients(encoder: nn.Module, features: Tensor, coors: Tensor) -> dict[str, Tensor]:
    """Gradient of each parameter that got one, and of the input, for a fixed loss."""
    encoder.zero_grad()
    features = features.clone().requires_grad_()
    bev = encoder(features, coors, 2)
    (bev * torch.linspace(-1, 1, bev.numel()).view_as(bev)).sum().backward()
    found = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    return {**found, 'input': features.grad}


def build(cls: type) -> nn.Module:
    """Stages of a submanifold and a strided convolution, or of a residual block and the latter."""
    torch.manual_seed(0)
    if cls is SparseEncoder:
        return sparse_encoder()
    return CmtSparseEncoder(
        in_channels=4,
        sparse_shape=[41, 16, 16],
        base_channels=4,
        output_channels=4,
        encoder_channels=((4, 4), (4, 4), (4, 4), (4,)),
        encoder_paddings=((0, 1), (0, 1), (0, [0, 1, 1]), (0,)),
        block_type='basicblock',
    )


@pytest.mark.parametrize('cls', [SparseEncoder, CmtSparseEncoder])
@pytest.mark.parametrize('mode', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('settings', SETTINGS, ids=str)
def test_trainable_layers_learn_wherever_frozen_layers_are(on_cuda, cls, mode, settings):
    encoder = freeze(build(cls), FreezePolicy(**settings)).train(mode)
    twin = build(cls)  # of no frozen layer; its norms compute in the same modes
    for module, other in zip(encoder.modules(), twin.modules(), strict=True):
        other.training = module.training
    found, expected = (gradients(model, *voxels()) for model in (encoder, twin))
    assert set(found) == trainable(encoder) | {'input'}
    torch.testing.assert_close(found, {name: expected[name] for name in found}, rtol=0, atol=0)


@pytest.mark.parametrize('cls', [SparseEncoder, CmtSparseEncoder])
def test_a_schedule_may_freeze_and_unfreeze(on_cuda, cls):
    encoder = add_fast_path(build(cls), name='encoder')
    features, coors = voxels()
    for settings in SETTINGS:
        freeze(encoder, FreezePolicy(**settings)).train()
        with torch.no_grad():  # a validation between two epochs
            encoder.eval()(features, coors, 2)
        encoder.train()(features, coors, 2)
        expected = trainable(encoder) | {'input'}
        assert set(gradients(encoder, features, coors)) == expected, settings


def test_without_a_gradient_spconv_runs_as_in_evaluation(on_cuda, monkeypatch):
    seen = []
    rules = SparseConvolution._conv_forward.__wrapped__

    def note(module, training, *args, **kwargs):
        seen.append(training)
        return rules(module, training, *args, **kwargs)

    monkeypatch.setattr(SparseConvolution, '_conv_forward', note)
    compat.differentiate_spconv_in_evaluation_mode()
    encoder = build(CmtSparseEncoder).eval()
    encoder(*voxels(), 2)
    with torch.no_grad():
        encoder(*voxels(), 2)
    half = len(seen) // 2
    assert seen == [True] * half + [False] * half


def test_spconv_alone_loses_gradients(on_unpatched_cuda):
    """What the patch is for: a frozen stem, and what trains before a frozen layer."""
    encoder = freeze(build(CmtSparseEncoder), FreezePolicy(frozen_stages=0)).train()
    with pytest.raises(RuntimeError, match="no backward pairs under 'subm1'"):
        gradients(encoder, *voxels())
    policy = FreezePolicy(freeze_layers=[2], always_trainable=['conv_input'])
    encoder = freeze(build(CmtSparseEncoder), policy).train()
    lost = trainable(encoder) - set(gradients(encoder, *voxels()))
    assert lost == names_below(
        encoder, 'conv_input', 'encoder_layers.encoder_layer1', 'encoder_layers.encoder_layer2'
    )
