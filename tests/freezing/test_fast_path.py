"""The copy of a frozen module equals it at any time and is invisible to everything else."""

import copy
import io
import logging
import pickle
from pathlib import Path

import pytest
import torch
from freezable import (
    PARTS,
    as_list,
    photo,
    resnet,
    sparse_encoder,
    trainable,
    voxels,
    with_statistics,
)
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing
from torch import nn
from toy_runner import make_runner

from projects.cmt_aqr.doctor.random_sample import random_batch
from projects.cmt_aqr.freezing import (
    FreezePolicy,
    add_fast_path,
    fast_path_of,
    freeze,
    renew_fast_paths,
)
from projects.cmt_aqr.freezing.audit import find_frozen

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FROZEN = FreezePolicy(frozen=True)


@pytest.fixture
def log(monkeypatch) -> list[logging.LogRecord]:
    """What the current logger is told from INFO on."""
    records = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'handle', records.append)
    return records


def block() -> nn.Sequential:
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    return with_statistics(module)


def frozen_block(**settings) -> nn.Sequential:
    return add_fast_path(freeze(block(), FROZEN), name='block', **settings)


def image() -> torch.Tensor:
    return torch.randn(2, 2, 8, 8)


def plainly(module: nn.Module, *inputs):
    """What the class itself computes."""
    return type(module).forward(module, *inputs)


def copy_of(module: nn.Module) -> nn.Module | None:
    return fast_path_of(module)._copy


def assert_close(found, expected, limit: float = 1e-5) -> None:
    for a, b in zip(as_list(found), as_list(expected), strict=True):
        assert a.dtype == b.dtype
        assert b.abs().max() > 0.1
        assert (a - b).abs().max() <= limit * b.abs().max()


# What it computes.


MODULES = {**PARTS, 'checkpointed ResNet': (lambda: resnet(with_cp=True), photo)}


@pytest.mark.parametrize('name', MODULES)
def test_outputs_of_every_part_of_the_detector_are_unchanged(name):
    make, make_input = MODULES[name]
    module = freeze(with_statistics(make()), FROZEN)
    inputs = make_input()
    expected = module(*inputs)
    add_fast_path(module, name=name)
    for _ in range(2):
        found = module(*inputs)
        assert_close(found, expected)
        assert not any(tensor.requires_grad for tensor in as_list(found))
    kinds = {type(m) for m in copy_of(module).modules()}
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)


def test_the_copy_computes_and_not_the_module():
    module, x = frozen_block(), image()
    module(x)
    copy_of(module)[0].bias.data.add_(1)  # no one else would notice
    assert (module(x) - plainly(module, x)).abs().max() > 0.5


def test_the_copy_has_its_channels_last():
    module = frozen_block()
    y = module(image())
    for tensor in (copy_of(module)[0].weight, y):
        assert tensor.is_contiguous(memory_format=torch.channels_last)


def test_kernels_of_other_dimensions_keep_their_layout():
    module = nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3))
    add_fast_path(freeze(module, FreezePolicy(frozen=True, norm_eval=True)), name='block')
    x = torch.randn(1, 2, 4, 4, 4)
    assert_close(module(x), plainly(module, x))
    assert copy_of(module)[0].weight.is_contiguous()


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_lower_precision_is_within_the_copy(dtype):
    module, x = frozen_block(dtype=dtype), image()
    y = module(x)
    assert copy_of(module)[0].weight.dtype == getattr(torch, dtype)
    assert module[0].weight.dtype == torch.float32
    assert_close(y, plainly(module, x), limit=2e-2)
    assert not torch.equal(y, plainly(module, x))


def test_autocast_does_not_change_the_precision_asked_for():
    module, x = frozen_block(dtype='float16'), image()
    expected = module(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert torch.equal(module(x), expected)


def test_without_a_precision_autocast_decides():
    module, x = frozen_block(), image()
    module(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert module[:1](x).dtype == module(x).dtype == torch.bfloat16


def test_sparse_convolutions_keep_their_precision():
    module = freeze(with_statistics(sparse_encoder()), FROZEN)
    inputs = voxels()
    expected = module(*inputs)
    add_fast_path(module, name='encoder', dtype='bfloat16', compile=True)
    assert_close(module(*inputs), expected)


def test_compiled_code_is_kept_when_weights_change(monkeypatch):
    compiled = []

    def compile(function):
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, 'compile', compile)
    module, x = frozen_block(compile=True), image()
    module(x)
    with torch.no_grad():
        module[0].weight.mul_(2)
    assert_close(module(x), plainly(module, x))
    assert [function.__self__ for function in compiled] == [copy_of(module)]


@pytest.mark.parametrize('dtype', ['half', 'float32', torch.bfloat16])
def test_an_unknown_precision_is_refused(dtype):
    with pytest.raises(ValueError, match=r"dtype .* must be one of None, 'float16', 'bfloat16'"):
        add_fast_path(nn.ReLU(), name='relu', dtype=dtype)


# Where it computes.


def test_modules_without_parameters_are_unchanged():
    assert fast_path_of(add_fast_path(nn.ReLU(), name='relu')) is None


def test_a_trainable_module_computes_itself():
    module, x = add_fast_path(block(), name='block'), image()
    mean = module[1].running_mean.clone()
    module(x).sum().backward()
    assert module[0].weight.grad is not None
    assert not torch.equal(module[1].running_mean, mean)
    assert copy_of(module) is None


@pytest.mark.parametrize('by', ['gradient', 'mode'])
def test_a_half_frozen_module_computes_itself(by):
    module = block().requires_grad_(by == 'gradient').train(by == 'mode')
    add_fast_path(module, name='block')
    module(image())
    assert copy_of(module) is None


def test_an_input_with_a_gradient_gets_it_from_the_module():
    module, x = frozen_block(), image().requires_grad_()
    (gradient,) = torch.autograd.grad(module(x).square().sum(), x)
    (expected,) = torch.autograd.grad(plainly(module, x).square().sum(), x)
    assert torch.equal(gradient, expected)
    assert copy_of(module) is None
    with torch.no_grad():
        module(x)
    assert copy_of(module) is not None


def test_unfreezing_drops_the_copy_and_freezing_brings_it_back():
    module, x = frozen_block(), image()
    module(x)
    freeze(module, FreezePolicy())
    assert module(x).requires_grad
    assert copy_of(module) is None
    assert fast_path_of(module).own_bytes() == 0
    with torch.no_grad():
        module[0].weight.mul_(2)
    freeze(module, FROZEN)
    assert_close(module(x), plainly(module, x))
    assert copy_of(module) is not None


def test_norms_computed_in_another_order_are_noticed(log):
    class Reordered(nn.Sequential):
        """The norm comes after the ReLU."""

        def forward(self, x):
            return self[1](self[2](self[0](x)))

    module = add_fast_path(freeze(Reordered(*block()), FROZEN), name='neck')
    x = image()
    for _ in range(2):
        assert torch.equal(module(x), plainly(module, x))
    assert copy_of(module) is None
    (record,) = [r for r in log if 'no fast path' in r.getMessage()]
    assert record.levelname == 'WARNING'
    assert record.getMessage().startswith('neck: no fast path, because folding its norms')


def test_rounding_that_the_module_magnifies_is_no_fault(log):
    """The output is the difference of two channels that are nearly equal."""
    module = with_statistics(nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.BatchNorm2d(1)))
    module[0].weight.data[:] = torch.tensor([1.0, -1.0])[:, None, None]
    module[1].running_mean.zero_()
    module[1].bias.data.zero_()
    add_fast_path(freeze(module, FROZEN), name='neck')
    x = image()
    x[:, 1] = x[:, 0] * (1 + 2e-6)
    found, expected = module(x), plainly(module, x)
    assert (found - expected).abs().max() > 0.01 * expected.abs().max()
    assert copy_of(module) is not None
    assert not [r for r in log if 'no fast path' in r.getMessage()]


# Never stale.


def write_in_place(module: nn.Module) -> None:
    with torch.no_grad():
        module[0].weight.neg_()


def write_data_and_tell(module: nn.Module) -> None:
    module[0].weight.data.neg_()
    renew_fast_paths(module)


def half(state: dict) -> dict:
    return {name: tensor.half() for name, tensor in state.items()}


CHANGES = {
    'write in place': write_in_place,
    'write statistics': lambda m: m[1].running_mean.add_(1),
    'load': lambda m: m.load_state_dict(block().state_dict()),
    'load in half': lambda m: m.load_state_dict(half(block().state_dict())),
    'assign': lambda m: m.load_state_dict(block().requires_grad_(False).state_dict(), assign=True),
    'replace data': lambda m: setattr(m[0].weight, 'data', m[0].weight.data * 2),
    'replace parameter': lambda m: m[0].register_parameter(
        'weight', nn.Parameter(m[0].weight.detach() * 2, requires_grad=False)
    ),
    'replace norm': lambda m: m.add_module('1', block()[1].requires_grad_(False).eval()),
    'write data and tell': write_data_and_tell,
}


@pytest.mark.parametrize('change', CHANGES.values(), ids=CHANGES)
def test_the_copy_follows_the_module(change):
    module, x = frozen_block(), image()
    before = module(x)
    change(module)
    after = module(x)
    assert_close(after, plainly(module, x))
    assert (after - before).abs().max() > 0.1


def test_the_copy_follows_to_another_type_or_device():
    module, x = frozen_block(), image()
    module(x)
    module.double()
    assert module(x.double()).dtype == torch.float64
    module.to('meta')
    with pytest.raises((RuntimeError, NotImplementedError)):
        module(x)  # as the module itself: the input is elsewhere


def test_an_unchanged_module_is_copied_once():
    module, x = frozen_block(), image()
    module(x)
    first = copy_of(module), copy_of(module)[0].weight.data_ptr()
    for mode in (True, False, True):
        module.train(mode)
        module(x)
        assert (copy_of(module), copy_of(module)[0].weight.data_ptr()) == first


@pytest.mark.parametrize('norms', [True, False])
def test_a_copy_in_use_does_not_change_the_module(norms):
    """Nor does what is not folded, and so shared at first, change layout or precision."""
    module = block() if norms else nn.Sequential(nn.Conv2d(2, 3, 3))
    freeze(module, FROZEN)
    before = copy.deepcopy(module.state_dict())
    strides = {name: t.stride() for name, t in module.state_dict().items()}
    add_fast_path(module, name='block', dtype='bfloat16')
    module(image())
    after = module.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        assert tensor.stride() == strides[name]
        assert torch.equal(tensor, before[name]), name


# Seen by no one else.


class Detector(BaseModel):
    """A backbone and a head, on a number blown up to an image."""

    def __init__(self, **fast_path) -> None:
        super().__init__()
        self.backbone = add_fast_path(
            freeze(with_statistics(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))), FROZEN),
            name='backbone',
            **fast_path,
        )
        self.head = nn.Linear(2, 1)

    def train(self, mode: bool = True):
        if mode != self.training:
            renew_fast_paths(self)
        return super().train(mode)

    def forward(self, inputs, data_samples, mode: str = 'tensor'):
        maps = self.backbone(inputs[:, :, None, None].expand(-1, -1, 4, 4))
        prediction = self.head(maps.mean(dim=(2, 3)))
        if mode == 'loss':
            return dict(loss=((prediction - data_samples) ** 2).mean())
        return [*prediction]


def test_the_copy_is_in_no_list_of_the_module():
    with_copy, without = Detector(), Detector()
    without.backbone.forward = lambda x: plainly(without.backbone, x)
    batch = torch.randn(2, 1), torch.randn(2, 1)
    with_copy(*batch), without(*batch)
    assert copy_of(with_copy.backbone) is not None
    for names in (
        nn.Module.state_dict,
        lambda model: dict(model.named_modules()),
        lambda model: dict(model.named_parameters()),
        lambda model: dict(model.named_buffers()),
        lambda model: find_frozen(model).tensors,
    ):
        assert list(names(with_copy)) == list(names(without))
    assert trainable(with_copy) == {'head.weight', 'head.bias'}
    optimizer = build_optim_wrapper(with_copy, dict(optimizer=dict(type='SGD', lr=0.1))).optimizer
    assert sum(len(group['params']) for group in optimizer.param_groups) == 6


@pytest.mark.parametrize('how', ['deepcopy', 'pickle', 'torch.save'])
def test_a_copy_of_the_module_begins_without_one_and_makes_its_own(how):
    module, x = frozen_block(), image()
    module(x)
    if how == 'deepcopy':
        other = copy.deepcopy(module)
    elif how == 'pickle':
        other = pickle.loads(pickle.dumps(module))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert copy_of(module) is not None
    assert copy_of(other) is None
    write_in_place(other)
    assert_close(other(x), plainly(other, x))
    assert (other(x) - module(x)).abs().max() > 0.1


def test_hooks_on_the_module_fire_once():
    module, calls = frozen_block(), []
    module.register_forward_hook(lambda *_: calls.append(1))
    module(image())
    calls.clear()
    module(image())
    assert calls == [1]


def test_the_size_of_the_copy_excludes_shared_memory():
    module = frozen_block()
    module(image())
    folded = module[0].weight.nbytes + module[0].bias.nbytes
    assert fast_path_of(module).own_bytes() == folded

    linear = freeze(nn.Sequential(nn.Linear(4, 4)), FROZEN)
    add_fast_path(linear, name='linear')
    linear(torch.randn(2, 4))
    assert fast_path_of(linear).own_bytes() == 0


def test_the_copy_is_logged_once(log):
    module = frozen_block()
    for _ in range(2):
        module(image())
        write_in_place(module)
    messages = [r.getMessage() for r in log if 'optimised copy' in r.getMessage()]
    assert messages == [
        'block: computed by an optimised copy with 1 folded norms and 0.0 MB of its own'
    ]


# In a run.


class CompareHook(Hook):
    """Compares with the plain path in every forward of a run."""

    def before_run(self, runner) -> None:
        self.compared = []
        self.handle = runner.model.backbone.register_forward_hook(self._compare)

    def _compare(self, module, inputs, output) -> None:
        expected = plainly(module, *inputs)
        self.compared.append((output - expected).abs().max().item() < 1e-5)
        self.of_copy = copy_of(module) is not None


class WriteAverage(Hook):
    """Lets the averaged backbone differ from the trained one."""

    priority = 'ABOVE_NORMAL'  # before the average is swapped in

    def __init__(self, ema: EMAHook) -> None:
        self.ema = ema

    def before_val_epoch(self, runner) -> None:
        self.ema.ema_model.module.backbone[0].weight.data.mul_(-3)


def test_averaged_weights_that_are_swapped_in_are_computed_with(tmp_path):
    """mmengine's EMAHook writes through ``.data``, of which torch keeps no count."""
    ema, compare = EMAHook(), CompareHook()
    hooks = [ema, WriteAverage(ema), compare]
    runner = make_runner(tmp_path, epochs=2, model=Detector(), custom_hooks=hooks)
    runner.train()
    assert len(compare.compared) == 8
    assert all(compare.compared)
    average = ema.ema_model.module.backbone[0].weight
    assert not torch.equal(runner.model.backbone[0].weight, average)
    assert compare.of_copy


# In the detector.


def losses_and_gradients(model: nn.Module, batch: dict) -> tuple[dict, dict]:
    torch.manual_seed(0)
    data = model.data_preprocessor(copy.deepcopy(batch), training=True)
    model.zero_grad()
    losses = model(**data, mode='loss')
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return losses, gradients


@pytest.mark.parametrize(
    ('recipe', 'frozen'), [('frozen', 3), ('low_rate', 0), ('fixed_features', 5)]
)
def test_recipes_train_with_the_fast_path_as_without(recipe, frozen):
    cfg = Config.fromfile(CONFIGS / 'cmt_aqr/cmt_aqr_tiny_synthetic.py')
    cfg.merge_from_dict(cfg.recipes[recipe])
    model = MODELS.build(cfg.model).train()
    with_statistics(model.img_backbone), with_statistics(model.pts_backbone)
    batch = random_batch(cfg, num_points=3000, num_boxes=4)
    losses, gradients = losses_and_gradients(model, batch)
    paths = [path for path in map(fast_path_of, model.children()) if path is not None]
    assert len(paths) == 5  # the voxel encoder has no parameters
    assert sum(path.own_bytes() > 0 for path in paths) == frozen

    for path in paths:
        del path.module.forward
    plain = losses_and_gradients(model, batch)
    for found, expected in zip((losses, gradients), plain, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            limit = 1e-4 * value.abs().max().item() + 1e-6
            torch.testing.assert_close(found[name], value, rtol=0, atol=limit, msg=name)


def test_a_change_of_mode_renews_the_copies_of_the_detector():
    cfg = Config.fromfile(CONFIGS / 'cmt/cmt_tiny_synthetic_finetune.py')
    cfg.merge_from_dict(cfg.recipes.fixed_features)
    model = MODELS.build(cfg.model).train()
    neck, maps = model.pts_neck, [torch.randn(1, 64, 8, 8), torch.randn(1, 128, 4, 4)]
    neck(maps)
    neck.deblocks[0][0].weight.data.neg_()  # as EMAHook does, before the mode changes
    model.eval()
    assert_close(neck(maps), plainly(neck, maps))


def test_under_activation_checkpointing_the_copy_is_found_and_renewed():
    model = nn.ModuleDict({'block': frozen_block()})
    block, x = model['block'], image()
    path = fast_path_of(block)
    turn_on_activation_checkpointing(model, ['block'])
    assert fast_path_of(block) is path
    block(x)
    block[0].weight.data.neg_()  # as EMAHook does
    renew_fast_paths(model)
    assert_close(block(x), plainly(block, x))


def test_a_plain_config_has_no_fast_path():
    cfg = Config.fromfile(CONFIGS / 'cmt/cmt_tiny_synthetic.py')
    assert not any(map(fast_path_of, MODELS.build(cfg.model).modules()))
