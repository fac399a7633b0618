"""Under autocast geometry, sparse convolutions and losses stay in float32, as released."""

from pathlib import Path

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from torch import nn

from projects.cmt_aqr.geometry import lift, project


@pytest.fixture(scope='module')
def batch(repo_root: Path, synthetic_root: Path) -> tuple[nn.Module, dict]:
    """The tiny CMT with a router, and a sample."""
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic_c.py')
    dataset = cfg.train_dataloader.dataset
    dataset.data_root = str(synthetic_root)
    dataset.pipeline = [step for step in dataset.pipeline if step.type != 'ModalMask3D']
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).train()
    return model, pseudo_collate([DATASETS.build(dataset)[0]])


@pytest.fixture
def seen(batch) -> dict[str, tuple[torch.dtype, bool]]:
    """Of some parts the type of the input, and whether autocast acts on what they do."""
    model, _ = batch
    parts = {
        'voxels': model.pts_voxel_encoder,
        'sparse': model.pts_middle_encoder.conv_input,
        'dense': model.pts_neck.deblocks[0],
        'class loss': model.pts_bbox_head.criterion.loss_cls,
        'box loss': model.pts_bbox_head.criterion.loss_bbox,
    }
    seen, handles = {}, []
    for name, part in parts.items():

        def note(module: nn.Module, inputs: tuple, name: str = name) -> None:
            features = getattr(inputs[0], 'features', inputs[0])
            seen[name] = (features.dtype, torch.is_autocast_enabled('cpu'))

        handles.append(part.register_forward_pre_hook(note))
    yield seen
    for handle in handles:
        handle.remove()


def test_voxels_sparse_convolutions_and_losses_are_in_float32(batch, seen):
    model, data = batch
    with torch.autocast('cpu', torch.bfloat16):
        losses = model(**model.data_preprocessor(data, True), mode='loss')
    assert seen == {
        'voxels': (torch.float32, True),  # sums and a quotient, which autocast leaves alone
        'sparse': (torch.float32, False),
        'dense': (torch.bfloat16, True),
        'class loss': (torch.float32, False),
        'box loss': (torch.float32, False),
    }
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert [name for name, gradient in gradients.items() if gradient is None] == []
    assert all(gradient.isfinite().all() for gradient in gradients.values())


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
