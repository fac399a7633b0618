"""Maps, weights, freezing and wrong uses of the vision encoders."""

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from pretend_device import DEVICE, PretendDevice
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.testing import assert_close
from towers import SIZES, SMALL, make_tower, save_tower
from toy_runner import make_runner
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from projects.cmt_aqr.backbones import VisionEncoder
from projects.cmt_aqr.backbones.towers import NORMALISATIONS, import_transformers
from projects.cmt_aqr.feature_cache.fingerprint import fingerprint_modules
from projects.cmt_aqr.freezing import (
    FreezeAuditHook,
    FreezePolicy,
    add_fast_path,
    fast_path_of,
    freeze,
)
from projects.cmt_aqr.freezing.audit import FreezeViolation

NUM_BLOCKS = 4


def load(folder, **options) -> VisionEncoder:
    encoder = VisionEncoder(pretrained=str(folder), **options)
    encoder.init_weights()
    return encoder.eval()


def small(family: str = 'dinov2', **options) -> VisionEncoder:
    return VisionEncoder(architecture=SMALL[family], **options)


def images(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def hidden_states(tower: nn.Module, pixels: Tensor) -> tuple[Tensor, ...]:
    """What `transformers` itself returns for images that are not square."""
    options = {}
    if isinstance(tower, (transformers.SiglipVisionModel, transformers.CLIPVisionModel)):
        options = dict(interpolate_pos_encoding=True)
    if isinstance(tower, transformers.Siglip2VisionModel):
        size = tower.config.patch_size
        rows, columns = (length // size for length in pixels.shape[-2:])
        in_rows = [convert_image_to_patches(image.numpy(), size) for image in pixels]
        pixels = torch.from_numpy(np.stack(in_rows))
        mask = torch.ones(pixels.shape[:2], dtype=torch.long)
        shapes = torch.tensor([[rows, columns]] * len(pixels))
        options = dict(pixel_attention_mask=mask, spatial_shapes=shapes)
    with torch.no_grad():
        return tower(pixels, output_hidden_states=True, **options).hidden_states


@pytest.mark.parametrize('family', SMALL)
def test_maps_are_the_hidden_states_of_transformers(family, tmp_path):
    """Of an image that is not square, so that positions are interpolated."""
    tower = save_tower(family, tmp_path)
    encoder = load(tmp_path, layers=[0, 2, -1])
    patch = encoder.patch_size
    x = images(2 * patch, 3 * patch)
    mean, std = (
        torch.tensor(value).view(3, 1, 1) for value in NORMALISATIONS[tower.config.model_type]
    )
    due = hidden_states(tower, (x - mean) / std)
    with torch.no_grad():
        found = encoder(x)
    assert len(found) == 3
    for layer, features in zip((0, 2, 3), found, strict=True):
        assert features.shape == (2, 16, 2, 3)
        patches = due[layer + 1][:, -6:]
        assert_close(features.flatten(2).transpose(1, 2), patches, atol=1e-5, rtol=1e-5)


def test_only_the_needed_part_is_built():
    """The last but one layer by default; no parameter is without influence."""
    for family in SMALL:
        encoder = small(family)
        assert encoder.layers == (NUM_BLOCKS - 2,)
        assert encoder.out_channels == 16
        (features,) = encoder(images(encoder.patch_size, 2 * encoder.patch_size))
        features.square().sum().backward()
        unused = [n for n, p in encoder.named_parameters() if p.grad is None]
        assert unused == [], family


@pytest.mark.parametrize(('family', 'whole'), [('siglip', 'Siglip'), ('clip', 'CLIP')])
def test_the_tower_of_a_model_of_images_and_texts(family, whole, tmp_path):
    text = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9)
    text |= dict(intermediate_size=8, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    vision = {key: value for key, value in SMALL[family].items() if key != 'model_type'}
    config = getattr(transformers, f'{whole}Config')(text_config=text, vision_config=vision)
    model = getattr(transformers, f'{whole}Model')(config)
    model.save_pretrained(tmp_path)
    tower = make_tower(family)
    tower.load_state_dict(model.vision_model.state_dict())
    encoder = load(tmp_path)
    x = images(32, 48)
    due = hidden_states(tower, (x - encoder.mean) / encoder.std)[-2]
    assert_close(encoder(x)[0].flatten(2).transpose(1, 2), due[:, -6:], atol=1e-5, rtol=1e-5)


def test_stride_resizes_the_images():
    encoder = small(stride=16).eval()
    x = images(32, 48)
    resized = nn.functional.interpolate(x, (28, 42), mode='bilinear', antialias=True)
    assert encoder(x)[0].shape == (2, 16, 2, 3)
    encoder.stride = 14
    due = encoder(resized)[0]
    encoder.stride = 16
    assert_close(encoder(x)[0], due)


@pytest.mark.parametrize(
    ('policy', 'trained'),
    [
        (dict(frozen=True), []),
        (dict(freeze_layers=[0, 1]), [2]),
        (dict(unfreeze_layers=[-1]), [2]),
        (dict(freeze_ratio=0.5), [1, 2]),
        (dict(unfreeze_layers=[-2], freeze_ratio=1.0, frozen=True), [1]),
    ],
)
@pytest.mark.parametrize('family', ['dinov2', 'dinov3', 'siglip'])
def test_freezing(family, policy, trained):
    """Three blocks are built, of which -1 is the last."""
    encoder = freeze(small(family), FreezePolicy(**policy))
    stack = {'dinov2': 'encoder.layer', 'dinov3': 'model.layer'}.get(family, 'encoder.layers')
    names = {n for n, p in encoder.named_parameters() if p.requires_grad}
    blocks = tuple(f'tower.{stack}.{layer}.' for layer in trained)
    assert names == {n for n, _ in encoder.named_parameters() if trained and n.startswith(blocks)}
    encoder.train()
    assert encoder.tower.embeddings.training is False


def test_rates_by_layer():
    model = nn.ModuleDict(dict(img_backbone=small()))
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='StrictOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-4),
            paramwise_cfg=dict(custom_keys=dict(img_backbone=dict(lr_mult=0.02, layer_decay=0.5))),
        ),
    )
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    tower = model['img_backbone'].tower
    found = [rates[id(block.norm1.weight)] for block in tower.encoder.layer]
    assert found == pytest.approx([0.5e-6, 1e-6, 2e-6])
    assert rates[id(tower.embeddings.cls_token)] == pytest.approx(0.25e-6)


def test_checkpointed_blocks_learn_the_same():
    plain, saving = small(), small(with_cp=True)
    saving.load_state_dict(plain.state_dict())
    gradients = []
    for encoder in (plain, saving):
        freeze(encoder, FreezePolicy(unfreeze_layers=[-1, -2]))
        encoder.train()
        encoder(images(28, 28))[0].square().sum().backward()
        gradients.append({n: p.grad for n, p in encoder.named_parameters() if p.grad is not None})
    assert len(gradients[0]) > 20
    assert_close(gradients[1], gradients[0])


def test_fast_path_and_mixed_precision():
    encoder = freeze(small(stride=16), FreezePolicy(frozen=True))
    x = images(32, 48)
    due = encoder(x)[0]
    add_fast_path(encoder, name='img_backbone', dtype='bfloat16')
    found = encoder(x)[0]
    assert fast_path_of(encoder)._copy is not None
    assert 0 < (found - due).abs().max() < 0.05 * due.abs().max()
    encoder = small().train()
    with torch.autocast('cpu', torch.bfloat16):
        encoder(images(28, 28))[0].float().sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


class TowerModel(BaseModel):
    """A frozen encoder and a linear layer, for the points of the toy Runner."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        encoder = VisionEncoder(pretrained=str(folder))
        self.backbone = freeze(encoder, FreezePolicy(frozen=True), name='backbone')
        self.line = nn.Linear(16, 1)

    def forward(self, inputs: Tensor, data_samples: Tensor, mode: str = 'tensor'):
        (features,) = self.backbone(inputs.view(-1, 1, 1, 1).expand(-1, 3, 28, 28) / 4)
        prediction = self.line(features.mean(dim=(2, 3)))
        if mode == 'loss':
            return dict(loss_line=((prediction - data_samples) ** 2).mean())
        return [*prediction]


def test_the_audit_of_a_run(tmp_path):
    """It sees that the folder filled the frozen weights, and gradients switched on by mistake."""
    tower = save_tower('dinov2', tmp_path / 'tower')
    model = TowerModel(tmp_path / 'tower')
    train(model, tmp_path / 'run')
    own = model.backbone.tower.state_dict()
    assert_close(own, {key: tower.state_dict()[key] for key in own})

    class Mistake(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            runner.model.backbone.tower.requires_grad_(True)

    with pytest.raises(FreezeViolation, match='frozen parameters that require a gradient again'):
        train(TowerModel(tmp_path / 'tower'), tmp_path / 'mistaken', Mistake())


def train(model: nn.Module, work_dir: Path, *hooks: Hook) -> None:
    runner = make_runner(work_dir, model=model, custom_hooks=[*hooks, FreezeAuditHook()])
    runner.optim_wrapper = OptimWrapper(torch.optim.AdamW(model.line.parameters(), lr=0.01))
    runner.train()


def test_cached_features_belong_to_the_weights_not_to_the_folder(tmp_path):
    encoders = []
    for folder in ('a', 'b'):
        save_tower('dinov2', tmp_path / folder)
        encoders.append(load(tmp_path / folder))
    digests = [fingerprint_modules(dict(img_backbone=encoder)) for encoder in encoders]
    encoders[1](images(28, 28))
    digests.append(fingerprint_modules(dict(img_backbone=encoders[1])))
    assert len(set(digests)) == 1
    others = [load(tmp_path / 'a', layers=[-1]), load(tmp_path / 'a', stride=16), small()]
    digests += [fingerprint_modules(dict(img_backbone=encoder)) for encoder in others]
    assert len(set(digests)) == 4


# Wrong uses.


def test_a_folder_that_lacks_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'no config\.json: download the tower'):
        load(tmp_path)
    save_tower('dinov2', tmp_path)
    (tmp_path / 'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'no model\.safetensors: download the tower'):
        load(tmp_path)


def test_the_network_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))

    def connect(*_):
        raise AssertionError('a connection was opened')

    monkeypatch.setattr('socket.socket.connect', connect)
    with pytest.raises(FileNotFoundError, match='neither a folder nor in the local cache'):
        load('facebook/dinov2-base')


def test_weights_that_do_not_fit(tmp_path):
    save_tower('dinov2', tmp_path)
    encoder = VisionEncoder(
        pretrained=str(tmp_path), architecture={**SMALL['dinov2'], 'hidden_size': 32}
    )
    with pytest.raises(ValueError, match='does not fit the Dinov2Model'):
        encoder.init_weights()


def test_another_normalisation(tmp_path):
    save_tower('dinov2', tmp_path)
    own = dict(image_mean=[0.5] * 3, image_std=[0.2] * 3)
    (tmp_path / 'preprocessor_config.json').write_text(json.dumps(own))
    with pytest.raises(ValueError, match=r'set mean=\[0\.5, 0\.5, 0\.5\], std=\[0\.2'):
        load(tmp_path)
    load(tmp_path, mean=own['image_mean'], std=own['image_std'])
    with PretendDevice():
        encoder = VisionEncoder(pretrained=str(tmp_path)).to(DEVICE)
        with pytest.raises(ValueError, match=r'set mean=\[0\.5'):
            encoder.init_weights()


def test_images_of_another_scale():
    x = images(28, 28)
    for wrong in ((x - 0.45) / 0.22, 255 * x):
        with pytest.raises(ValueError, match='normalises RGB in'):
            small()(wrong)
    encoder = small()
    encoder(x)
    encoder.to('meta')(x.to('meta'))  # has no values to check
    encoder = small(stride=16)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:  # nor have those of the benchmarks
        assert encoder(mode.from_tensor(images(32, 48)))[0].shape == (2, 16, 2, 3)


def test_images_that_the_patch_does_not_divide():
    with pytest.raises(ValueError, match='28 x 30 pixels cannot be divided into tokens of 14 x 14'):
        small()(images(28, 30))


@pytest.mark.parametrize('layers', [[4], [-5], []])
def test_unknown_layers(layers):
    with pytest.raises(ValueError, match='must be one or more of 0 to 3, or -1 to -4'):
        small(layers=layers)


@pytest.mark.parametrize('model_type', ['nonsense', 'bert', 'resnet', None])
def test_unknown_towers(model_type):
    with pytest.raises(ValueError, match='is not the model_type of a vision transformer'):
        VisionEncoder(architecture=dict(model_type=model_type))


def test_misspelt_architecture():
    with pytest.raises(ValueError, match='needs pretrained, the folder of a tower'):
        VisionEncoder()
    with pytest.raises(ValueError, match='architecture of dinov2 has no hiden_size'):
        VisionEncoder(architecture=dict(model_type='dinov2', hiden_size=16))


def test_a_family_without_a_known_normalisation():
    architecture = dict(model_type='vit', patch_size=16, image_size=32, **SIZES)
    with pytest.raises(ValueError, match='give both mean and std'):
        VisionEncoder(architecture=architecture)
    encoder = VisionEncoder(architecture=architecture, mean=[0.5] * 3, std=[0.5] * 3)
    assert encoder(images(32, 48))[0].shape == (2, 16, 2, 3)


def test_transformers_missing_or_too_old(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(ImportError, match='is missing: install 5'):
        import_transformers()
    old = types.SimpleNamespace(__version__='4.57.1')
    monkeypatch.setitem(sys.modules, 'transformers', old)
    with pytest.raises(ImportError, match=r'transformers 4\.57\.1 is too old'):
        import_transformers()
