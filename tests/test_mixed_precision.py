"""Under autocast the parts compute in the precisions of the released training."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from projects.cmt_aqr.geometry import lift, project


@pytest.fixture(scope='module')
def config(repo_root: Path) -> Config:
    """Config of the tiny CMT with a router, of which nothing is frozen."""
    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py')
    cfg.merge_from_dict(cfg.recipes.low_rate)
    return cfg


@pytest.fixture
def model_config(config: Config) -> dict:
    return config.model


@pytest.fixture(scope='module')
def batch(config: Config, synthetic_root: Path) -> tuple[nn.Module, dict]:
    """The model of this config, and a sample."""
    init_default_scope('mmdet3d')
    cfg = copy.deepcopy(config)
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(synthetic_root)
    dataset.pipeline = dataset.pipeline[len(cfg.drop_sensors) :]
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    return model, pseudo_collate([DATASETS.build(dataset)[0]])


def run_under_autocast(batch: tuple[nn.Module, dict]) -> dict[str, Tensor]:
    """Losses of the sample in bfloat16, with the same noise and masks in every call."""
    model, data = batch
    torch.manual_seed(0)
    with torch.autocast('cpu', torch.bfloat16):
        return model(**model.data_preprocessor(data, True), mode='loss')


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    return {name: part for name, part in model.named_children() if name != 'data_preprocessor'}


def floats(values: object) -> list[Tensor]:
    """Floating-point tensors in whatever a module takes or returns."""
    found: list[Tensor] = []
    values = getattr(values, 'features', values)  # of a sparse tensor
    apply_to(values, lambda v: torch.is_tensor(v) and v.is_floating_point(), found.append)
    return found


@contextmanager
def types_left(modules: dict[str, nn.Module]) -> Iterator[dict[str, set[torch.dtype]]]:
    """By name, the types that leave the innermost modules of each module."""
    seen: dict[str, set[torch.dtype]] = {name: set() for name in modules}
    handles = []
    for name, module in modules.items():
        for leaf in module.modules():
            if not any(True for _ in leaf.children()):

                def note(*call: object, name: str = name) -> None:
                    seen[name] |= {tensor.dtype for tensor in floats(call[-1])}

                handles.append(leaf.register_forward_hook(note))
    yield seen
    for handle in handles:
        handle.remove()


class AttentionKernels(TorchDispatchMode):
    """Types of the queries of attention's kernels: from queries to queries, and to tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.to_queries: set[torch.dtype] = set()
        self.to_tokens: set[torch.dtype] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None) -> object:
        if 'scaled_dot_product' in function.name() and 'backward' not in function.name():
            q, k = args[:2]
            seen = self.to_queries if q.shape[2] == k.shape[2] else self.to_tokens
            seen.add(q.dtype)
        return function(*args, **(kwargs or {}))


def test_every_part_computes_in_the_precision_of_the_released_training(batch):
    model, _ = batch
    with types_left(parts_of(model)) as seen, AttentionKernels() as kernels:
        losses = run_under_autocast(batch)
    assert seen == {
        'img_backbone': {torch.bfloat16},
        'img_neck': {torch.bfloat16},
        'pts_voxel_encoder': {torch.float32},
        'pts_middle_encoder': {torch.float32},
        'pts_backbone': {torch.bfloat16},
        'pts_neck': {torch.bfloat16},
        'pts_bbox_head': {torch.float32},
    }
    assert kernels.to_queries == {torch.float32}
    assert kernels.to_tokens == {torch.bfloat16}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_what_enters_each_part(batch):
    model, _ = batch
    head = model.pts_bbox_head
    parts = {
        'sparse convolution': model.pts_middle_encoder.conv_input,
        'BEV projection': head.shared_conv,
        'BEV position': head.bev_embedding,
        'ray position': head.rv_embedding,
        'router': head.router.aqr_weight_generator,
        'self-attention': head.transformer.layers[0].attentions[0].attn,
        'cross-attention': head.transformer.layers[0].attentions[1].attn,
        'task head': head.task_heads[0],
        'class loss': head.criterion.loss_cls,
        'box loss': head.criterion.loss_bbox,
    }
    seen, handles = {}, []
    for name, part in parts.items():

        def note(module: nn.Module, inputs: tuple, name: str = name) -> None:
            entering = {tensor.dtype for tensor in map(floats, inputs) for tensor in tensor}
            seen[name] = (entering, torch.is_autocast_enabled('cpu'))

        handles.append(part.register_forward_pre_hook(note))
    run_under_autocast(batch)
    for handle in handles:
        handle.remove()
    assert seen == dict.fromkeys(parts, ({torch.float32}, False))


def test_gradients_under_autocast_are_finite(batch):
    model, _ = batch
    model.zero_grad()
    losses = run_under_autocast(batch)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_offsets_are_finer_than_half_precision(batch):
    """Rounded to bfloat16, an offset of 1 errs by up to 2^-8: a decimetre in a range of 108 m."""
    model, _ = batch
    seen = {}
    handle = model.pts_bbox_head.task_heads[0].register_forward_hook(
        lambda *call: seen.update(call[-1])
    )
    run_under_autocast(batch)
    handle.remove()
    for name, values in seen.items():
        assert values.dtype == torch.float32, name
        assert (values != values.bfloat16()).float().mean() > 0.9, name


def test_other_parts_can_be_named(batch, model_config):
    _, data = batch
    config = {**model_config, 'float32_parts': ['img_neck']}
    other = MODELS.build(config).train()
    with types_left(parts_of(other)) as seen:
        run_under_autocast((other, data))
    assert seen['img_neck'] == {torch.float32}
    assert torch.bfloat16 in seen['pts_bbox_head']
    assert seen['pts_middle_encoder'] == {torch.float32}  # by mmdet3d


@pytest.mark.parametrize('parts', [['img_backbone', 'pts_head'], 'img_neck'])
def test_a_part_that_is_none_is_refused(model_config, parts):
    with pytest.raises(
        ValueError, match=r'float32_parts is .* must be a list of names out of .*neck'
    ):
        MODELS.build({**model_config, 'float32_parts': parts})


def test_a_training_step_in_bfloat16_on_any_device(batch, model_config):
    _, data = batch
    model = MODELS.build(model_config).train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper = OPTIM_WRAPPERS.build(
        dict(
            type='BFloat16OptimWrapper',
            optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]),
        )
    )
    with types_left({'camera': model.img_neck}) as seen:
        model.train_step(data, wrapper)
    assert seen == {'camera': {torch.bfloat16}}
    assert not torch.is_autocast_enabled('cpu')
    after = dict(model.named_parameters())
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in after.values())
    moved = {name.split('.')[0] for name, p in after.items() if not torch.equal(p, before[name])}
    assert moved == {name.split('.')[0] for name in after}


def test_projection_is_as_precise_as_without():
    points = torch.tensor([[[1.0, 50.0, -1.0], [-3.3, 27.7, 0.2]]])
    lidar2img = torch.tensor(
        [[1266.4, 816.3, 0.0, 3.0], [0.0, 491.5, -1266.4, 5.0], [0, 1.0, 0, 0.3], [0, 0, 0, 1.0]]
    )[None, None]
    exact = project(points, lidar2img, (900, 1600))
    rays = lift(exact.pixels[:, 0], torch.tensor([1.0, 60.0]), torch.linalg.inv(lidar2img)[:, 0])
    with torch.autocast('cpu', torch.bfloat16):
        mixed = project(points, lidar2img, (900, 1600))
        mixed_rays = lift(
            exact.pixels[:, 0], torch.tensor([1.0, 60.0]), torch.linalg.inv(lidar2img)[:, 0]
        )
    assert torch.equal(mixed.pixels, exact.pixels)
    assert torch.equal(mixed_rays, rays)


def test_outputs_that_are_not_finite_are_named_with_the_sample(batch):
    model, data = batch
    token = data['data_samples'][0].token
    parameter = next(p for name, p in model.named_parameters() if 'task_heads' in name)
    kept = parameter.detach().clone()
    parameter.data.fill_(torch.nan)
    try:
        with pytest.raises(FloatingPointError, match=rf'not finite(.|\n)*samples: {token}'):
            model(**model.data_preprocessor(data, True), mode='loss')
    finally:
        parameter.data.copy_(kept)
