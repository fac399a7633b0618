"""Two processes that train together, one of them without boxes and images."""

import os
from pathlib import Path
from unittest import mock

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from test_detector import batch, cloud
from torch import nn

from projects.cmt_aqr.matching import criterion

ROOT = Path(__file__).parents[1]
STEPS = 2
BATCHES = [dict(boxes=(3, 2)), dict(boxes=(0, 0), images=False)]


def make_model() -> nn.Module:
    init_default_scope('mmdet3d')
    config = Config.fromfile(ROOT / 'configs/cmt/cmt_tiny_synthetic.py').model
    config.pts_bbox_head.aqr = Config.fromfile(ROOT / 'configs/_base_/aqr_tiny.py').aqr
    torch.manual_seed(0)
    return MODELS.build(config).train()


def backward(model: nn.Module, rank: int) -> None:
    """Loss and gradients of a rank's batch; ``model`` may be wrapped."""
    detector = getattr(model, 'module', model)
    torch.manual_seed(rank + 1)
    data = detector.data_preprocessor(batch([cloud(), cloud()], **BATCHES[rank]), training=True)
    detector.parse_losses(model(**data, mode='loss'))[0].backward()


def train_on_rank(rank: int, folder: Path) -> None:
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(str(folder / 'store'), 2)
    torch.distributed.init_process_group('gloo', store=store, rank=rank, world_size=2)
    model = MMDistributedDataParallel(make_model(), device_ids=None, broadcast_buffers=False)
    reduced, all_reduce = [], torch.distributed.all_reduce

    def counted(tensor: torch.Tensor, *args, **kwargs) -> None:
        reduced.append(tuple(tensor.shape))
        all_reduce(tensor, *args, **kwargs)

    with mock.patch.object(torch.distributed, 'all_reduce', counted):
        for _ in range(STEPS):  # DDP names a parameter without a gradient in the step after
            model.zero_grad()
            backward(model, rank)
    gradients = {name: p.grad for name, p in model.module.named_parameters()}
    torch.save(dict(reduced=reduced, gradients=gradients), folder / f'{rank}.pth')
    torch.distributed.destroy_process_group()


def expected_gradients(monkeypatch) -> dict[str, torch.Tensor]:
    """Mean over both ranks, each alone with the mean of their counts."""
    counts = []
    monkeypatch.setattr(criterion, 'reduce_mean', lambda x: counts.append(x) or x)
    for rank in range(2):
        backward(make_model(), rank)
    mean = torch.stack(counts).mean(dim=0)
    monkeypatch.setattr(criterion, 'reduce_mean', lambda x: mean)
    models = [make_model(), make_model()]
    for rank, model in enumerate(models):
        for _ in range(STEPS):
            model.zero_grad()
            backward(model, rank)
    alone = [dict(model.named_parameters()) for model in models]
    return {name: (alone[0][name].grad + alone[1][name].grad) / 2 for name in alone[0]}


@pytest.fixture
def one_thread():
    """As many threads as each rank has: others would round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_rank_without_boxes_and_images_keeps_step(tmp_path, monkeypatch, one_thread):
    torch.multiprocessing.spawn(train_on_rank, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1))
    assert (
        first['reduced'] == second['reduced'] == [(2, 2)] * STEPS
    )  # of the only task and of denoising
    expected = expected_gradients(monkeypatch)
    assert first['gradients'].keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(first['gradients'][name], second['gradients'][name]), name
        error = (first['gradients'][name] - gradient).norm()
        assert error <= 1e-4 * gradient.norm(), name
