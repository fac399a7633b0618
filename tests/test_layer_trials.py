"""Labels of layers from trials, and what is learned from them."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import init_default_scope
from test_detector import batch, cloud
from towers import SMALL

from projects.cmt_aqr.layer_trials import LayerTrialDetector

NUM_LAYERS = 3


@pytest.fixture(scope='module')
def model_config(repo_root):
    init_default_scope('mmdet3d')
    config = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py').model
    config['type'] = 'LayerTrialDetector'
    config['img_backbone'] = dict(
        type='VisionEncoder', architecture=SMALL['siglip'], layers=[0, 1, 3], frozen=True
    )
    config['img_neck'] = dict(
        type='AdaptiveMoEProjector',
        in_channels=16,
        out_channels=64,
        num_layers=NUM_LAYERS,
        combine=dict(type='AdaptiveLayers', num_layers=NUM_LAYERS, channels=16, top_k=2),
    )
    config.pts_bbox_head.update(num_query=20)
    config.pts_bbox_head.transformer.update(num_layers=1)
    config.data_preprocessor.update(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True)
    return config


@pytest.fixture
def detector(model_config):
    MessageHub.get_instance('trials').update_info('iter', 0)
    MessageHub.get_instance('trials')
    torch.manual_seed(0)
    return MODELS.build(model_config).train()


def prepared(detector, **options) -> dict:
    data = batch([cloud()], boxes=(2,), views=(2,), **options)
    return detector.data_preprocessor(data, training=True)


def test_the_layer_with_the_least_loss_is_the_label(detector, monkeypatch):
    """Each is tried, and the label is that of the smallest detection loss."""
    selector = detector._selector
    selector.top_k = NUM_LAYERS
    losses, labels = [], []
    original = type(detector)._detection_loss

    def record(self, inputs, samples):
        assert not torch.is_grad_enabled()
        assert not self.img_neck.training
        losses.append((self._selector.label.item(), original(self, inputs, samples)))
        return losses[-1][1]

    monkeypatch.setattr(type(detector), '_detection_loss', record)
    monkeypatch.setattr(
        type(selector), '_loss', lambda s, logits: labels.append(s.label.item()) or 0 * logits.sum()
    )
    data = prepared(detector)
    detector(**data, mode='loss')
    assert sorted(layer for layer, _ in losses) == [0, 1, 2]
    assert len({loss.item() for _, loss in losses}) == NUM_LAYERS
    assert labels == [min(losses, key=lambda pair: pair[1])[0]]
    assert detector.training
    assert detector.pts_bbox_head.training
    assert selector.label is None


def test_other_steps_have_no_trials_but_gradients(detector, monkeypatch):
    """The backbones run once in any step, and every trainable parameter gets a gradient."""
    detector._selector.interval = 4
    runs = []
    detector.img_backbone.register_forward_hook(lambda *_: runs.append('images'))
    detector.pts_backbone.register_forward_hook(lambda *_: runs.append('points'))
    trials = []
    original = type(detector)._detection_loss
    monkeypatch.setattr(
        type(detector), '_detection_loss', lambda *a: trials.append(1) or original(*a)
    )
    for step, expected in ((3, 0), (4, 2)):
        MessageHub.get_current_instance().update_info('iter', step)
        runs.clear()
        detector.zero_grad()
        losses = detector(**prepared(detector), mode='loss')
        assert len(trials) == expected
        assert sorted(runs) == ['images', 'points']
        assert {'loss_layer', 'loss_load_balance'} <= losses.keys()
        sum(losses.values()).backward()
        trainable = {n: p for n, p in detector.named_parameters() if p.requires_grad}
        assert [n for n, p in trainable.items() if p.grad is None] == []


def test_a_step_without_trials_equals_one_of_the_plain_detector(detector, model_config):
    MessageHub.get_current_instance().update_info('iter', 1)
    detector._selector.interval = 2
    plain = MODELS.build({**model_config, 'type': 'CmtDetector'}).train()
    plain.load_state_dict(detector.state_dict())
    plain.img_neck.combine.has_trials = True
    data = prepared(detector)
    found = []
    for model in (detector, plain):
        torch.manual_seed(5)
        found.append(model(**data, mode='loss'))
    torch.testing.assert_close(found[0], found[1])


def test_cached_features_take_the_place_of_the_backbone(detector):
    data = prepared(detector)
    torch.manual_seed(5)
    due = detector(**data, mode='loss')
    images = data['inputs'].pop('imgs')
    data['inputs']['features'] = {'img_backbone': detector.image_maps(images)}
    torch.manual_seed(5)
    torch.testing.assert_close(detector(**data, mode='loss'), due)


def test_a_frozen_neck_makes_no_trials(model_config, monkeypatch):
    MessageHub.get_current_instance().update_info('iter', 0)
    neck = dict(model_config.img_neck, frozen=True)
    detector = MODELS.build({**model_config, 'img_neck': neck}).train()
    monkeypatch.delattr(LayerTrialDetector, '_best_layer')
    assert 'loss_layer' not in detector(**prepared(detector), mode='loss')


def test_a_batch_without_images(detector):
    """It makes as many trials as the batches of other ranks, which have images."""
    losses = detector(**prepared(detector, images=False), mode='loss')
    assert 'loss_layer' not in losses
    sum(losses.values()).backward()
    trainable = {n: p for n, p in detector.named_parameters() if p.requires_grad}
    assert [n for n, p in trainable.items() if p.grad is None] == []


def test_wrong_uses(model_config):
    plain = MODELS.build({**model_config, 'type': 'CmtDetector'}).train()
    with pytest.raises(RuntimeError, match="type='LayerTrialDetector'"):
        plain(**prepared(plain), mode='loss')
    neck = dict(type='LinearProjector', in_channels=48, out_channels=64)
    with pytest.raises(ValueError, match='needs one AdaptiveLayers in img_neck, which has 0'):
        MODELS.build({**model_config, 'img_neck': neck})
    with pytest.raises(ValueError, match='top_k 3 is not in 1 to num_layers 2'):
        MODELS.build(dict(type='AdaptiveLayers', num_layers=2, channels=4, top_k=3))


def test_a_health_monitor_keeps_its_statistics(model_config):
    """They follow the maps of a branch, as in a cache."""
    torch.manual_seed(0)
    config = {**model_config, 'health_monitor': dict(type='HealthMonitor')}
    detector = MODELS.build(config).train()
    data = prepared(detector)
    data['inputs']['health'] = dict(lidar=torch.ones(1, 32, 32), camera=torch.ones(1, 2, 8, 22))
    assert 'loss_health_lidar' in detector(**data, mode='loss')
    found = detector._with_features(data['inputs'])
    assert len(found['features']['img_backbone']) == NUM_LAYERS + 1
    for branch in ('lidar', 'camera'):
        kept, due = (
            detector.health_monitor.statistics_of(branch, x) for x in (found, data['inputs'])
        )
        assert torch.equal(kept, due)


def test_under_autocast_the_neck_learns_after_a_trial(detector):
    data = prepared(detector)
    with torch.autocast('cpu', torch.bfloat16):
        losses = detector(**data, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    assert all(p.grad is not None for p in detector.img_neck.parameters())
