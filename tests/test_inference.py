"""A folded detector predicts what it did, and is the same in everything else."""

import copy

import numpy as np
import pytest
import torch
from cuda_attention import cuda_attention_on_cpu
from freezable import with_statistics
from mmdet3d.registry import MODELS
from mmengine.config import Config
from pretend_device import DEVICE, PretendDevice
from small_head import make_head, random_batch, spy
from torch import nn

from projects.cmt_aqr.doctor.random_sample import random_batch as random_frame
from projects.cmt_aqr.freezing import fast_path_of, frozen_modules
from projects.cmt_aqr.inference import fold_for_inference
from projects.cmt_aqr.usage_error import UsageError

CONFIGS = ['cmt/cmt_tiny_synthetic', 'cmt_aqr/cmt_aqr_tiny_synthetic']
FOLDED = ['img_backbone', 'img_neck', 'pts_middle_encoder', 'pts_backbone', 'pts_neck']


def read(repo_root, name: str = CONFIGS[0]) -> Config:
    return Config.fromfile(repo_root / f'configs/{name}.py')


def make_detector(cfg: Config) -> nn.Module:
    """A detector with random weights and statistics, also in the last layer of its router."""
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for part in (*map(model.get_submodule, FOLDED), model.pts_bbox_head.shared_conv):
        with_statistics(part)
    if model.pts_bbox_head.router is not None:
        for linear in model.pts_bbox_head.router.aqr_weight_generator.to_weight.values():
            nn.init.normal_(linear.weight)
    return model.eval()


@pytest.fixture
def frame(repo_root) -> dict:
    return random_frame(read(repo_root), num_points=3000, num_boxes=4)


@torch.no_grad()
def outputs_of(model: nn.Module, frame: dict) -> dict[str, torch.Tensor]:
    """Outputs of all heads, and the boxes with their scores."""
    data = model.data_preprocessor(copy.deepcopy(frame), training=False)
    outputs = {
        f'{index} {name}': value[-1]
        for index, task in enumerate(model(**data, mode='tensor'))
        for name, value in task.items()
    }
    (sample,) = model.test_step(copy.deepcopy(frame))
    found = sample.pred_instances_3d
    return {**outputs, 'boxes': found.bboxes_3d.tensor, 'scores': found.scores_3d}


def change(found: dict, expected: dict) -> float:
    """Largest difference, relative to the largest value of an output."""
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == value.dtype for name, value in expected.items())
    return max(
        float((found[name] - value).abs().max() / value.abs().max())
        for name, value in expected.items()
    )


def copies_of(model: nn.Module) -> dict[str, nn.Module | None]:
    paths = {name: fast_path_of(module) for name, module in model.named_modules()}
    return {name: path._copy for name, path in paths.items() if path is not None}


@pytest.mark.parametrize('name', CONFIGS)
def test_predictions_are_unchanged(repo_root, frame, name):
    model = make_detector(read(repo_root, name))
    expected = outputs_of(model, frame)
    fold_for_inference(model)
    for _ in range(2):  # the second frame reads the cache
        assert change(outputs_of(model, frame), expected) < 1e-4
    copies = copies_of(model)
    assert {*copies} == {*FOLDED, 'pts_bbox_head.shared_conv'}
    for part in copies.values():
        assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in part.modules())


@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
def test_weights_and_state_dict_are_untouched(repo_root, frame, dtype):
    model = make_detector(read(repo_root))
    state = copy.deepcopy(model.state_dict())
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    outputs_of(fold_for_inference(model, dtype=dtype), frame)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == trains
    assert [*model.state_dict()] == [*state]
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == state[name].dtype
        assert torch.equal(tensor, state[name])


def losses_and_gradients(model: nn.Module, frame: dict) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    data = model.train().data_preprocessor(copy.deepcopy(frame), training=True)
    losses = model(**data, mode='loss')
    model.zero_grad()
    sum(loss for name, loss in losses.items() if 'loss' in name).backward()
    return {**losses, **{name: p.grad for name, p in model.named_parameters()}}


@pytest.mark.parametrize('name', CONFIGS)
def test_training_goes_on_as_if_it_had_not_been_folded(repo_root, frame, name):
    model = make_detector(read(repo_root, name))
    plain = copy.deepcopy(model)
    outputs_of(fold_for_inference(model), frame)
    found, expected = losses_and_gradients(model, frame), losses_and_gradients(plain, frame)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name] is None and value is None) or torch.equal(found[name], value), name
    kept = {part for part, found in copies_of(model).items() if found is not None}
    assert kept == {'img_backbone', 'pts_middle_encoder', 'pts_backbone'} & {
        part.split('.')[0] for part in frozen_modules(model)
    }
    assert not model.pts_bbox_head.position_cache._kept


def test_gradients_pass_in_evaluation_mode(repo_root, frame):
    """As maps of attribution need them."""
    model = fold_for_inference(make_detector(read(repo_root)))
    data = model.data_preprocessor(copy.deepcopy(frame), training=False)
    model(**data, mode='tensor')[0]['center'].sum().backward()
    assert model.img_backbone.layer1[0].conv1.weight.grad.abs().sum() > 0
    assert model.pts_bbox_head.rv_embedding[0].weight.grad.abs().sum() > 0


def test_weights_that_ema_swaps_in_are_predicted_with(repo_root, frame):
    """mmengine's EMAHook writes through ``.data`` before the mode changes."""
    model = fold_for_inference(make_detector(read(repo_root)))
    before = outputs_of(model, frame)
    model.train()
    plain = copy.deepcopy(model)
    for each in (model, plain):
        each.img_neck.lateral_convs[0].conv.weight.data.neg_()
        each.pts_bbox_head.rv_embedding[0].weight.data.neg_()
        each.pts_bbox_head.reference_points.weight.data.mul_(0.5)
        each.eval()
    expected = outputs_of(plain, frame)
    assert change(outputs_of(model, frame), expected) < 1e-4
    assert change(before, expected) > 0.1


def test_bfloat16_is_within_the_copies_and_the_kernels(repo_root, frame):
    model = make_detector(read(repo_root))
    expected = outputs_of(model, frame)
    options = spy(model.pts_bbox_head.transformer)
    found = outputs_of(fold_for_inference(model, dtype='bfloat16'), frame)
    dense = [part for name, part in copies_of(model).items() if name != 'pts_middle_encoder']
    assert {p.dtype for part in dense for p in part.parameters()} == {torch.bfloat16}
    assert options['kernel_dtype'] == torch.bfloat16
    del found['boxes'], expected['boxes'], found['scores'], expected['scores']  # other order
    assert 1e-4 < change(found, expected) < 0.1


def test_a_fast_path_of_the_config_keeps_its_precision(repo_root):
    cfg = read(repo_root)
    cfg.model.fast_path = dict(dtype='bfloat16')
    model = fold_for_inference(MODELS.build(cfg.model))
    assert fast_path_of(model.img_neck).dtype == torch.bfloat16
    assert fast_path_of(model.pts_bbox_head.shared_conv).dtype is None


def test_float16_on_a_cpu_is_refused():
    with pytest.raises(UsageError, match='float16 needs a GPU'):
        fold_for_inference(nn.Linear(1, 1), dtype='float16')


# Position embeddings.


def count_calls(module: nn.Module) -> list:
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


@torch.no_grad()
def test_a_fixed_rig_is_embedded_once():
    head = fold_for_inference(nn.ModuleDict({'pts_bbox_head': make_head().eval()}))
    head = head.pts_bbox_head
    calls = count_calls(head.rv_embedding)
    bev, images, samples = random_batch()
    for _ in range(3):
        head.predict(bev, images, samples)
    assert len(calls) == 2  # of tokens and of queries
    for sample in samples:
        matrices = np.array(sample.metainfo['lidar2img'])
        matrices[0, 0, 3] += 1e-3
        sample.set_metainfo(dict(lidar2img=matrices))
    expected = make_head().eval().predict(bev, images, samples)
    found = head.predict(bev, images, samples)
    assert len(calls) == 4
    for one, other in zip(found, expected, strict=True):
        assert (one.bboxes_3d.tensor - other.bboxes_3d.tensor).abs().max() < 1e-3
    head.rv_embedding[0].weight.mul_(2)
    head.predict(bev, images, samples)
    assert len(calls) == 6
    head.predict(bev[:1], images[:1], samples[:1])
    assert len(calls) == 8


def test_the_host_waits_for_no_device_on_a_known_rig(monkeypatch):
    with cuda_attention_on_cpu(monkeypatch), PretendDevice() as device, torch.no_grad():
        head = nn.ModuleDict({'pts_bbox_head': make_head().eval()}).to(DEVICE)
        head = fold_for_inference(head).pts_bbox_head
        bev, images, samples = random_batch()
        inputs = bev.to(DEVICE), images.to(DEVICE), [sample.metainfo for sample in samples]
        waits = []
        for _ in range(2):
            device.waits.clear()
            head(*inputs)
            waits.append(dict(device.waits))
    assert waits[0]['geometry.py:visible_pairs'] == 1
    assert waits[1] == {}
