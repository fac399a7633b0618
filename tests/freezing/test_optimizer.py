"""Groups of parameters: what is in them, at which rate, and which settings are refused."""

import copy
import logging

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from torch import nn
from toy_runner import make_runner

from projects.cmt_aqr.freezing.optimizer import StrictOptimWrapperConstructor

BASE = dict(lr=0.1, weight_decay=0.01)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.transformer = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
        self.foo_transformer = nn.Linear(2, 2)
        self.bev_embedding = nn.Linear(2, 2)
        self.rv_embedding = nn.Linear(2, 2)
        self.attention_bias_generator = nn.Module()
        self.attention_bias_generator.bias_scale = nn.Parameter(torch.ones(1))
        self.attention_bias_generator.project = nn.Linear(2, 1)


class Detector(nn.Module):
    """Module names of CMT, at a few numbers each."""

    def __init__(self) -> None:
        super().__init__()
        self.img_backbone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
        self.img_neck = nn.Conv2d(1, 1, 1)
        self.pts_voxel_encoder = nn.Identity()
        self.pts_bbox_head = Head()


@pytest.fixture
def model() -> Detector:
    return Detector()


@pytest.fixture
def log(monkeypatch) -> list[str]:
    """What the current logger is told from INFO on."""
    messages = []

    def handle(record: logging.LogRecord) -> None:
        if record.levelno >= logging.INFO:
            messages.append(record.getMessage())

    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', handle)
    return messages


def build(model: nn.Module, custom_keys: dict | None = None, **options) -> OptimWrapper:
    config = dict(
        type='OptimWrapper',
        constructor='StrictOptimWrapperConstructor',
        optimizer=dict(type='AdamW', **BASE),
        paramwise_cfg=dict(custom_keys=custom_keys or {}),
    )
    return build_optim_wrapper(model, ConfigDict({**config, **options}))


def groups(model: nn.Module, wrapper: OptimWrapper) -> dict[str, set[str]]:
    """Names of the parameters in each group."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        group['name']: {names[parameter] for parameter in group['params']}
        for group in wrapper.optimizer.param_groups
    }


def within(model: nn.Module, *prefixes: str) -> set[str]:
    return {name for name, _ in model.named_parameters() if name.startswith(prefixes)}


def rates(wrapper: OptimWrapper) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each group."""
    return {
        group['name']: (group['lr'], group['weight_decay'])
        for group in wrapper.optimizer.param_groups
    }


class TestGroups:
    def test_one_group_a_key_and_one_for_the_rest(self, model):
        wrapper = build(
            model, {'img_neck': dict(lr_mult=0.05, decay_mult=2.0), 'img_backbone': dict(lr_mult=2)}
        )
        assert groups(model, wrapper) == {
            'default': within(model, 'pts_bbox_head'),
            'img_backbone': within(model, 'img_backbone'),
            'img_neck': within(model, 'img_neck'),
        }
        assert rates(wrapper) == {
            'default': (0.1, 0.01),
            'img_backbone': (0.2, 0.01),
            'img_neck': (pytest.approx(0.005), 0.02),
        }

    def test_without_keys_all_trainable_parameters_are_one_group(self, model):
        model.img_backbone.requires_grad_(False)
        wrapper = build(model, paramwise_cfg=None)
        assert groups(model, wrapper) == {'default': within(model, 'img_neck', 'pts_bbox_head')}

    def test_frozen_parameters_are_in_no_group_and_no_line_each(self, model, log):
        model.img_backbone.requires_grad_(False)
        wrapper = build(model, {'img_backbone': dict(lr_mult=0.0), 'img_neck': dict(lr_mult=0.5)})
        assert list(groups(model, wrapper)) == ['default', 'img_neck']
        assert (
            "custom_keys: 'img_backbone' has no effect yet, all its 4 parameters are frozen" in log
        )
        assert len(log) == 2  # and the table

    def test_a_group_of_frozen_and_trainable_parameters_holds_the_latter(self, model):
        model.img_backbone[0].requires_grad_(False)
        wrapper = build(model, {'img_backbone': dict(lr_mult=0.5)})
        assert groups(model, wrapper)['img_backbone'] == within(model, 'img_backbone.1')

    def test_order_does_not_depend_on_the_config(self, model):
        keys = {'rv_embedding': {}, 'img_neck': {}, 'bev_embedding': {}}
        order = list(groups(model, build(model, keys)))
        assert order == ['default', 'bev_embedding', 'img_neck', 'rv_embedding']
        assert list(groups(model, build(model, dict(reversed(keys.items()))))) == order

    def test_shared_parameters_are_trained_once_under_any_of_their_names(self, model):
        model.pts_bbox_head.rv_embedding = model.pts_bbox_head.bev_embedding
        wrapper = build(model, {'rv_embedding': dict(lr_mult=0.5)})
        assert groups(model, wrapper)['rv_embedding'] == within(
            model, 'pts_bbox_head.bev_embedding'
        )
        assert within(model, 'pts_bbox_head.bev') & groups(model, wrapper)['default'] == set()

    def test_nothing_trainable(self, model):
        with pytest.raises(ValueError, match='every parameter of Detector is frozen'):
            build(model.requires_grad_(False))

    def test_table_is_one_message(self, model, log):
        build(model, {'img_neck': dict(lr_mult=0.05, decay_mult=0.0)})
        (table,) = log
        assert [line.split() for line in table.splitlines()[1:]] == [
            ['group', 'tensors', 'parameters', 'lr', 'decay'],
            ['default', '17', '36', '0.1', '0.01'],
            ['img_neck', '2', '2', '0.005', '0'],
        ]


class TestMatching:
    def test_whole_components_anywhere(self, model):
        wrapper = build(model, {'transformer': dict(lr_mult=0.5)})
        assert groups(model, wrapper)['transformer'] == within(model, 'pts_bbox_head.transformer')

    def test_a_parameter_is_a_component_too(self, model):
        keys = {
            'attention_bias_generator': dict(lr_mult=1.0),
            'attention_bias_generator.bias_scale': dict(lr_mult=0.5),
        }
        wrapper = build(model, keys)
        assert groups(model, wrapper)['attention_bias_generator.bias_scale'] == {
            'pts_bbox_head.attention_bias_generator.bias_scale'
        }
        assert groups(model, wrapper)['attention_bias_generator'] == within(
            model, 'pts_bbox_head.attention_bias_generator.project'
        )

    def test_more_components_win_over_more_characters(self, model):
        keys = {'pts_bbox_head': {}, 'a_very_long_name': {}, 'layers.0': {}}
        model.a_very_long_name = nn.ModuleDict({'layers': nn.ModuleList([nn.Linear(1, 1)] * 2)})
        model.a_very_long_name.layers[1] = nn.Linear(1, 1)
        wrapper = build(model, keys)
        assert groups(model, wrapper)['layers.0'] == within(model, 'a_very_long_name.layers.0')
        assert groups(model, wrapper)['a_very_long_name'] == within(
            model, 'a_very_long_name.layers.1'
        )

    def test_among_as_many_components_more_characters_win(self, model):
        wrapper = build(model, {'pts_bbox_head': {}, 'attention_bias_generator': {}})
        assert groups(model, wrapper)['attention_bias_generator'] == within(
            model, 'pts_bbox_head.attention_bias_generator'
        )

    def test_a_key_that_its_parts_leave_nothing_is_reported(self, model, log):
        keys = {'bev_embedding': {}, 'bev_embedding.weight': {}, 'bev_embedding.bias': {}}
        build(model, keys)
        assert (
            "custom_keys: ['bev_embedding.bias', 'bev_embedding.weight'] take all parameters of "
            "'bev_embedding'"
        ) in log

    def test_a_key_that_strangers_leave_nothing_is_an_error(self, model):
        with pytest.raises(ValueError, match="'transformer' has no effect") as error:
            build(model, {'transformer': dict(lr_mult=0.5), 'pts_bbox_head': dict(lr_mult=0.8)})
        assert "the longer keys ['pts_bbox_head'] take all" in str(error.value)
        assert "with its parents, as 'pts_bbox_head.transformer'" in str(error.value)
        keys = {'pts_bbox_head.transformer': dict(lr_mult=0.5), 'pts_bbox_head': dict(lr_mult=0.8)}
        assert rates(build(model, keys))['pts_bbox_head.transformer'] == (0.05, 0.01)

    def test_module_without_parameters_is_reported(self, model, log):
        build(model, {'pts_voxel_encoder': dict(lr_mult=0.1)})
        assert "custom_keys: 'pts_voxel_encoder' has no parameters" in log

    @pytest.mark.parametrize('value', [None, torch.ones(2)])
    def test_one_key_serves_a_module_that_learns_a_scale_and_one_that_does_not(
        self, model, log, value
    ):
        head = next(iter(model.children()))
        if value is None:
            head.register_parameter('temperature', None)
        else:
            head.register_buffer('temperature', value)
        build(model, {'temperature': dict(lr_mult=0.5)})
        assert "custom_keys: 'temperature' has no parameters" in log


class ResNet(nn.Module):
    """Named as one whose layers are known: a stem, three layers and what comes after them."""

    def __init__(self) -> None:
        super().__init__()
        for name in ('conv1', 'layer1', 'layer2', 'layer3', 'norm'):
            self.add_module(name, nn.Linear(1, 1))


class TestLayerDecay:
    @pytest.fixture
    def model(self) -> Detector:
        model = Detector()
        model.img_backbone = ResNet()
        return model

    def test_rates_fall_from_the_output_to_the_input(self, model):
        wrapper = build(model, {'img_backbone': dict(lr_mult=0.5, decay_mult=2, layer_decay=0.1)})
        expected = {
            'img_backbone stem': (('conv1',), 5e-5),
            'img_backbone layer 0': (('layer1',), 5e-4),
            'img_backbone layer 1': (('layer2',), 5e-3),
            'img_backbone layer 2': (('layer3', 'norm'), 5e-2),
        }
        found = groups(model, wrapper)
        assert list(found) == ['default', *expected]
        for name, (parts, lr) in expected.items():
            assert found[name] == within(model, *(f'img_backbone.{part}' for part in parts))
            assert rates(wrapper)[name] == (pytest.approx(lr), 0.02)
        multipliers = [group['lr_mult'] for group in wrapper.optimizer.param_groups]
        assert multipliers == pytest.approx([1, 5e-4, 5e-3, 5e-2, 0.5])

    def test_a_longer_key_has_its_own_rate(self, model):
        keys = {
            'img_backbone': dict(layer_decay=0.1),
            'img_backbone.layer1': dict(lr_mult=0.3),
        }
        wrapper = build(model, keys)
        assert groups(model, wrapper)['img_backbone.layer1'] == within(model, 'img_backbone.layer1')
        assert rates(wrapper)['img_backbone.layer1'] == (pytest.approx(0.03), 0.01)
        assert 'img_backbone layer 0' not in rates(wrapper)
        assert rates(wrapper)['img_backbone stem'] == (pytest.approx(1e-4), 0.01)

    def test_frozen_layers_are_left_out(self, model):
        model.img_backbone.conv1.requires_grad_(False)
        model.img_backbone.layer1.requires_grad_(False)
        wrapper = build(model, {'img_backbone': dict(lr_mult=0.5, layer_decay=0.1)})
        names = ['default', 'img_backbone layer 1', 'img_backbone layer 2']
        assert list(groups(model, wrapper)) == names

    @pytest.mark.parametrize('value', [0, -0.5, 1.1, float('nan'), '0.7', True])
    def test_out_of_range(self, model, value):
        with pytest.raises(
            ValueError, match=r"custom_keys\['img_backbone'\]: layer_decay"
        ) as error:
            build(model, {'img_backbone': dict(layer_decay=value)})
        assert f'is {value!r}; it must be a number greater than 0 and at most 1' in str(error.value)

    def test_module_without_known_layers(self, model):
        with pytest.raises(ValueError, match='which are unknown for Conv2d') as error:
            build(model, {'img_neck': dict(layer_decay=0.7)})
        assert 'ResNet' in str(error.value)

    def test_key_of_no_single_module(self, model):
        model.pts_backbone = nn.ModuleDict({'img_backbone': ResNet()})
        with pytest.raises(ValueError, match='a key that names one module') as error:
            build(model, {'img_backbone': dict(layer_decay=0.7)})
        assert "['img_backbone', 'pts_backbone.img_backbone']" in str(error.value)
        with pytest.raises(ValueError, match='this key names none'):
            build(model, {'bias_scale': dict(layer_decay=0.7)})


class TestErrors:
    @pytest.mark.parametrize(
        ('key', 'near'),
        [
            ('query_embed', "'bev_embedding' or 'rv_embedding'"),
            ('pts_bbox_head.query_embed', "'bev_embedding' or 'rv_embedding'"),
            ('img_neckk', "'img_neck'"),
            ('backbone', "'img_backbone'"),
            ('head.transformer', "'pts_bbox_head.transformer'"),
        ],
    )
    def test_unmatched_key(self, model, key, near):
        with pytest.raises(ValueError, match='matches no parameter') as error:
            build(model, {key: dict(lr_mult=0.5), 'img_neck': {}})
        message = str(error.value)
        assert message.startswith(f'custom_keys: {key!r} matches no parameter; did you mean {near}')
        assert "img_neck' matches" not in message
        assert message.endswith(
            'Top-level modules: img_backbone, img_neck, pts_bbox_head, pts_voxel_encoder'
        )

    def test_all_unmatched_keys_at_once(self, model):
        with pytest.raises(ValueError, match='matches no parameter') as error:
            build(model, {'xyzzy': {}, 'query_embed': {}})
        assert "'xyzzy' matches no parameter\n" in str(error.value)
        assert "'query_embed' matches no parameter; did" in str(error.value)

    def test_rate_of_zero_on_what_is_not_frozen(self, model):
        model.img_backbone[0].requires_grad_(False)
        with pytest.raises(
            ValueError, match=r"custom_keys\['img_backbone'\]: lr_mult is 0"
        ) as error:
            build(model, {'img_backbone': dict(lr_mult=0)})
        assert '2 of its parameters are not frozen, for example img_backbone.1' in str(error.value)
        assert "Freeze the module in the model's config" in str(error.value)

    @pytest.mark.parametrize('option', ['lr_mult', 'decay_mult'])
    @pytest.mark.parametrize('value', [-0.1, float('nan'), float('inf'), '0.1', None, True])
    def test_multiplier_out_of_range(self, model, option, value):
        with pytest.raises(ValueError, match=r"custom_keys\['img_neck'\]") as error:
            build(model, {'img_neck': {option: value}})
        assert f'{option} is {value!r}; it must be a finite number, 0 or' in str(error.value)

    @pytest.mark.parametrize(
        ('config', 'message'),
        [
            (dict(norm_decay_mult=0.0), r"\['norm_decay_mult'\]; allowed: custom_keys"),
            (['img_neck'], r"paramwise_cfg is \['img_neck'\]; it must be a dict"),
            (dict(custom_keys=['img_neck']), r"custom_keys is \['img_neck'\]; it must be a dict"),
            (
                dict(custom_keys={'img_neck': 0.1}),
                r"custom_keys\['img_neck'\] is 0.1; it must be a dict",
            ),
            (
                dict(custom_keys={'img_neck': dict(lr=0.1)}),
                r"unknown options \['lr'\]; allowed: lr_mult, decay_m",
            ),
            (
                dict(custom_keys={'default': dict(lr_mult=0.1)}),
                "'default' is the name of the group",
            ),
        ],
    )
    def test_invalid_settings(self, model, config, message):
        with pytest.raises(ValueError, match=message):
            build(model, paramwise_cfg=config)

    @pytest.mark.parametrize('lr', [None, 0.0, -1.0, float('nan')])
    def test_base_rate(self, model, lr):
        with pytest.raises(ValueError, match=f'optimizer.lr is {lr!r}; it must be a number'):
            build(model, optimizer=dict(type='AdamW', lr=lr))

    def test_multiplier_of_no_decay(self, model):
        with pytest.raises(ValueError, match='sets decay_mult, but the optimizer has no weight_de'):
            build(model, {'img_neck': dict(decay_mult=2)}, optimizer=dict(type='SGD', lr=0.1))


class TestInUse:
    def test_optimizer_without_weight_decay_keeps_its_default(self, model):
        wrapper = build(model, {'img_neck': {}}, optimizer=dict(type='AdamW', lr=0.1))
        assert rates(wrapper) == {'default': (0.1, 0.01), 'img_neck': (0.1, 0.01)}

    def test_model_wrapped_for_distributed_training(self, model, tmp_path):
        store = torch.distributed.FileStore(str(tmp_path / 'store'), 1)
        torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)
        try:
            wrapper = build(MMDistributedDataParallel(model), {'img_neck': dict(lr_mult=0.5)})
        finally:
            torch.distributed.destroy_process_group()
        assert groups(model, wrapper)['img_neck'] == within(model, 'img_neck')

    def test_config_is_not_changed(self, model):
        optim, paramwise = dict(optimizer=dict(type='SGD', **BASE)), dict(custom_keys={})
        given = copy.deepcopy((optim, paramwise))
        StrictOptimWrapperConstructor(optim, paramwise)(model)
        assert (optim, paramwise) == given

    def test_runner_trains_and_resumes_with_it(self, tmp_path):
        def train(**options):
            runner = make_runner(tmp_path, **options)
            runner.optim_wrapper = dict(  # a config until training builds it
                constructor='StrictOptimWrapperConstructor',
                optimizer=dict(type='AdamW', **BASE),
                paramwise_cfg=dict(custom_keys={'line.bias': dict(lr_mult=0.5)}),
            )
            runner.train()
            return runner

        train(epochs=1)
        runner = train(epochs=2, resume=True)
        named = {group['name']: group for group in runner.optim_wrapper.optimizer.param_groups}
        assert list(named) == ['default', 'line.bias']
        assert named['line.bias']['lr'] == pytest.approx(0.5 * named['default']['lr'])
        moments = runner.optim_wrapper.optimizer.state[runner.model.line.bias]
        assert moments['step'] == 4
