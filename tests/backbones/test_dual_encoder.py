"""Two encoders on one grid of tokens."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn
from torch.testing import assert_close
from towers import SMALL, save_tower

from projects.cmt_aqr.feature_cache.frozen_features import feature_folder
from projects.cmt_aqr.freezing import build_freezable

FIRST = dict(type='VisionEncoder', architecture=SMALL['dinov2'])
SECOND = dict(type='VisionEncoder', architecture={**SMALL['siglip'], 'hidden_size': 24})


def dual(**changes) -> nn.Module:
    config = dict(type='DualEncoder', first=FIRST, second=SECOND, stride=16)
    return build_freezable({**config, **changes}, MODELS, name='img_backbone')


def test_maps_are_concatenated_by_token():
    """Patches of 14 and 16 pixels on one grid, which the image fixes."""
    encoder = dual().eval()
    x = torch.rand(2, 3, 32, 48)
    (features,) = encoder(x)
    assert features.shape == (2, encoder.out_channels, 2, 3)
    assert encoder.out_channels == 16 + 24
    assert_close(features[:, :16], encoder.first(x)[0])
    assert_close(features[:, 16:], encoder.second(x)[0])


def test_several_layers_are_concatenated_one_by_one():
    layers = dict(layers=[-1, -3])
    encoder = dual(first={**FIRST, **layers}, second={**SECOND, **layers}).eval()
    x = torch.rand(1, 3, 32, 32)
    for i, features in enumerate(encoder(x)):
        assert_close(features, torch.cat([encoder.first(x)[i], encoder.second(x)[i]], dim=1))


@pytest.mark.parametrize('missing', ['first', 'second'])
def test_one_may_be_missing(missing):
    encoder = dual(**{missing: None}).eval()
    assert len([*encoder.children()]) == 1
    (left,) = encoder.children()
    x = torch.rand(1, 3, 32, 32)
    assert_close(encoder(x), left(x))


def test_the_published_pair_has_2176_channels():
    """DINOv2 ViT-L and SigLIP SO400M, of which no weight is allocated."""
    dinov2 = dict(model_type='dinov2', hidden_size=1024, num_hidden_layers=24)
    siglip = dict(model_type='siglip_vision_model', hidden_size=1152, intermediate_size=4304)
    siglip |= dict(num_hidden_layers=27, patch_size=14)
    heads = dict(num_attention_heads=16)
    with torch.device('meta'):
        encoder = dual(
            first=dict(type='VisionEncoder', architecture={**dinov2, **heads}),
            second=dict(type='VisionEncoder', architecture={**siglip, **heads}),
            stride=None,
        )
        (features,) = encoder(torch.empty(6, 3, 28, 42))
    assert features.shape == (6, 2176, 2, 3)
    count = [sum(p.numel() for p in part.parameters()) for part in encoder.children()]
    # The published 304 and 428 million, less the last block and, of SigLIP, the pooling head.
    assert [round(n / 1e6) for n in count] == [291, 397]


def test_each_encoder_freezes_by_itself():
    encoder = dual(
        first={**FIRST, 'frozen': True}, second={**SECOND, 'unfreeze_layers': [-1]}
    ).train()
    trained = {
        name.split('.layers.')[0] for name, p in encoder.named_parameters() if p.requires_grad
    }
    assert trained == {'second.tower.encoder'}
    assert not encoder.first.training
    frozen = dual(frozen=True, norm_eval=True).train()
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not any(module.training for module in frozen.modules())


@pytest.mark.parametrize('name', ['cmt_tiny_dinov2_siglip_synthetic', 'cmt_tiny_dinov2_synthetic'])
def test_features_of_the_configs_can_be_cached(name, repo_root):
    config = Config.fromfile(repo_root / f'configs/cmt_encoders/{name}.py')
    model = MODELS.build(config.model).train()
    folder = feature_folder(model, 'camera', dtype=torch.float16, training=True)
    assert folder.startswith('img_backbone/')


def test_rates_by_layer_of_one_encoder():
    model = nn.ModuleDict(dict(img_backbone=dual(first={**FIRST, 'frozen': True})))
    keys = {'img_backbone.second': dict(lr_mult=0.1, layer_decay=0.5)}
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='StrictOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1.0),
            paramwise_cfg=dict(custom_keys=keys),
        ),
    )
    rates = {group['name']: group['lr'] for group in wrapper.param_groups if group['params']}
    assert sorted(rates.values()) == pytest.approx([0.0125, 0.025, 0.05, 0.1])


def test_pretrained_weights_of_both(tmp_path):
    towers = [save_tower(name, tmp_path / name) for name in ('dinov2', 'siglip')]
    configs = [
        dict(type='VisionEncoder', pretrained=str(tmp_path / n)) for n in ('dinov2', 'siglip')
    ]
    encoder = dual(first=configs[0], second=configs[1])
    encoder.init_weights()
    for tower, part in zip(towers, encoder.children(), strict=True):
        own = tower.state_dict()
        assert_close(part.tower.state_dict(), {key: own[key] for key in part.tower.state_dict()})


def test_wrong_uses():
    with pytest.raises(ValueError, match='needs a first or a second encoder'):
        dual(first=None, second=None)
    with pytest.raises(ValueError, match='tokens of 14 and 16 pixels do not meet; set its stride'):
        dual(stride=None)
    with pytest.raises(ValueError, match='2 and 1 layers cannot be concatenated'):
        dual(first={**FIRST, 'layers': [0, 1]})
    with pytest.raises(ValueError, match='unknown for DualEncoder; use frozen=True'):
        dual(freeze_ratio=0.5)
