"""What the log says of the routing, against attention computed by hand."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from small_head import make_head, random_batch, routed_head, wake
from torch import nn

from projects.cmt_aqr.hooks import RoutingLogHook


@pytest.fixture
def make_runner(tmp_path):
    def make(head, iteration=0):
        model = nn.Module()
        model.pts_bbox_head = head
        hub = MessageHub(f'routing_{tmp_path.name}')
        return SimpleNamespace(model=model, iter=iteration, message_hub=hub, log_dir=str(tmp_path))

    return make


@pytest.fixture
def warnings(monkeypatch):
    """Messages of the log that are warnings."""
    texts = []

    def handle(record):
        if record.levelno == logging.WARNING:
            texts.append(record.getMessage())

    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', handle)
    return texts


def train_once(hook, runner):
    """One iteration; what is then in the log."""
    hook.before_train_iter(runner, 0)
    runner.model.pts_bbox_head.loss(*random_batch())
    hook.after_train_iter(runner, 0)
    scalars = runner.message_hub.log_scalars
    return {name.removeprefix('train/'): value.current() for name, value in scalars.items()}


def test_without_a_router_the_attention_is_logged(make_runner):
    logged = train_once(RoutingLogHook(), make_runner(make_head()))
    assert logged.keys() == {'lidar_share', 'gap', 'leverage'}
    # 64 LiDAR tokens beside 48 image tokens, and logits that hardly differ at first.
    assert 0.4 < logged['lidar_share'] < 0.75
    assert logged['leverage'] > 0.9


def test_decodings_of_one_modality_alone_are_not_counted(make_runner):
    logged = train_once(RoutingLogHook(), make_runner(make_head()))
    more = train_once(RoutingLogHook(), make_runner(make_head(all_combinations=True)))
    assert more['lidar_share'] == pytest.approx(logged['lidar_share'], abs=0.1)


def test_the_figures_by_layer_and_head_are_those_of_the_attention(make_runner, tmp_path):
    head = make_head().eval()
    bev, images, samples = random_batch()
    runner = make_runner(head)
    hook = RoutingLogHook()
    hook.before_test_epoch(runner)
    hook.before_test_iter(runner, 0)
    seen = []
    attention = head.transformer.layers[1].attentions[1].attn
    handle = attention.register_forward_hook(lambda _, inputs, __: seen.append(inputs))
    head.predict(bev, images, samples)
    handle.remove()
    hook.after_test_iter(runner, 0)
    metrics = {}
    hook.after_test_epoch(runner, metrics)

    q, k = attention.project(*seen[0][:2])
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    lidar, camera = logits[..., :64].logsumexp(-1), logits[..., 64:].logsumexp(-1)
    share = (lidar - camera).sigmoid().transpose(0, 1).flatten(1)
    line = json.loads((tmp_path / 'routing.jsonl').read_text())
    assert (line['phase'], line['iteration']) == ('test', 0)
    assert line['lidar_share'][1] == pytest.approx(share.mean(1).tolist(), rel=1e-4)
    gap = (lidar - camera).abs().transpose(0, 1).flatten(1).median(1).values
    assert line['gap'][1] == pytest.approx(gap.tolist(), rel=1e-3)
    balanced = ((share > 0.05) & (share < 0.95)).float().mean(1)
    assert line['leverage'][1] == pytest.approx(balanced.tolist())
    assert metrics.keys() == {'lidar_share', 'gap', 'leverage'}
    printed = {name: value.current() for name, value in runner.message_hub.log_scalars.items()}
    assert printed == {f'test/{name}': value for name, value in metrics.items()}


def test_weights_and_scales_of_a_router(make_runner):
    head = routed_head('BiasRouting', scope='both')
    torch.nn.init.constant_(head.router.aqr_weight_generator.to_weight['lidar'].bias, 100.0)
    with torch.no_grad():
        head.router.attention_bias_generator.bias_scale[1, 1] = 3.5
    logged = train_once(RoutingLogHook(), make_runner(head))
    assert (logged['w_lidar'], logged['w_lidar_std'], logged['w_camera']) == (1, 0, 0)
    assert logged['scale_local_camera'] == 3.5
    assert logged['scale_global_lidar'] == 2.5


def test_a_gate_has_no_scales_and_a_mix_a_temperature(make_runner):
    gate = train_once(RoutingLogHook(), make_runner(routed_head()))
    assert not any(name.startswith(('scale_', 'temperature')) for name in gate)
    head = routed_head('MixRouting')
    torch.nn.init.constant_(head.router.attention_bias_generator.temperature, 3.0)
    mix = train_once(RoutingLogHook(), make_runner(head))
    assert mix['temperature'] == 3
    assert {'scale_global_lidar', 'scale_global_camera'} <= mix.keys()


@pytest.mark.parametrize('form', ['BiasRouting', 'GateRouting', 'MixRouting'])
def test_routing_is_part_of_the_attention(make_runner, form):
    head = routed_head(form)
    plain = train_once(RoutingLogHook(), make_runner(head))
    torch.nn.init.constant_(head.router.aqr_weight_generator.to_weight['lidar'].bias, -100.0)
    suppressed = train_once(RoutingLogHook(), make_runner(head))
    assert suppressed['lidar_share'] < plain['lidar_share'] / 2


def test_a_router_without_a_routing_form_has_nothing_more_to_log(make_runner):
    head = routed_head(None, type='FeatureModulationRouter')
    logged = train_once(RoutingLogHook(), make_runner(head))
    assert {'w_lidar', 'w_camera', 'lidar_share'} < logged.keys()
    assert not any(name.startswith(('scale_', 'clamped')) for name in logged)


def test_the_share_of_clamped_queries_is_logged(make_runner):
    head = routed_head('BiasRouting')
    assert train_once(RoutingLogHook(), make_runner(head))['clamped'] == 0
    torch.nn.init.constant_(head.router.aqr_weight_generator.to_weight['lidar'].bias, 100.0)
    torch.nn.init.constant_(head.router.attention_bias_generator.bias_scale, 5.0)
    assert train_once(RoutingLogHook(), make_runner(head))['clamped'] == 1


def test_a_scale_at_a_limit_is_warned_of_once(make_runner, warnings):
    head = routed_head('BiasRouting')
    hook, runner = RoutingLogHook(), make_runner(head)
    train_once(hook, runner)
    assert warnings == []
    with torch.no_grad():
        head.router.attention_bias_generator.bias_scale[0, 1] = 5.0
    train_once(hook, runner)
    train_once(hook, runner)
    (warning,) = warnings
    assert warning.startswith('scale_global_camera is 5, a limit of its range (0.5, 5.0)')
    assert 'widen scale_range of aqr.routing' in warning
    with torch.no_grad():
        head.router.attention_bias_generator.bias_scale[0, 0] = 0.5
    train_once(hook, runner)
    assert [text.split()[0] for text in warnings] == ['scale_global_camera', 'scale_global_lidar']


def test_a_frozen_scale_at_a_limit_gives_no_warning(make_runner, warnings):
    head = routed_head('BiasRouting')
    torch.nn.init.constant_(head.router.attention_bias_generator.bias_scale, 5.0)
    head.router.attention_bias_generator.requires_grad_(False)
    assert train_once(RoutingLogHook(), make_runner(head))['scale_global_lidar'] == 5
    assert warnings == []


def test_only_every_nth_iteration_is_watched(make_runner):
    hook = RoutingLogHook(interval=4)
    assert train_once(hook, make_runner(make_head(), iteration=3)) == {}
    assert train_once(hook, make_runner(make_head(), iteration=4)) != {}


def test_nothing_stays_on_the_head(make_runner):
    head = routed_head()
    wake(head)
    train_once(RoutingLogHook(), make_runner(head))
    hooks = [(*m._forward_hooks, *m._forward_pre_hooks) for m in head.modules()]
    assert not any(hooks)


def test_a_head_of_one_sensor_and_other_models_are_left_alone(make_runner, tmp_path):
    hook = RoutingLogHook()
    for head in (make_head(modalities=['lidar']), nn.Linear(1, 1)):
        runner = make_runner(head)
        hook.before_train_iter(runner, 0)
        hook.after_train_iter(runner, 0)
        hook.after_test_epoch(runner, metrics := {})
        assert metrics == {}
    assert not (tmp_path / 'routing.jsonl').exists()


def test_an_interval_below_one_is_named():
    with pytest.raises(ValueError, match=r'test_interval \(0\) start at 1'):
        RoutingLogHook(test_interval=0)
