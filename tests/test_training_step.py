"""Waits of the host for the device, and collectives, in a training step of the whole detector."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cuda_attention import cuda_attention_on_cpu
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.hooks import RuntimeInfoHook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData
from pretend_device import DEVICE, PretendDevice
from torch import nn

from projects.cmt_aqr.hooks import BiasScaleHook, FiniteGradientHook, FiniteLossHook

CLASSES = [f'class {i}' for i in range(10)]
TASKS = {1: [CLASSES], 3: [CLASSES[:2], CLASSES[2:7], CLASSES[7:]]}

# One line for each time that the host waits, whatever the batch and the model.
WAITS = {
    'matching/ground_truth.py:of': 1,  # labels, which decide how many queries there are
    # Pairs of a query and a camera that sees it: for the embedding, whose reference points are
    # clamped to the range, and for the windows, with the reference points as they are.
    'geometry.py:visible_pairs': 2,
    'matching/matcher.py:_read': 1,  # matching costs of all layers, tasks and samples
    'detector.py:parse_losses': 1,  # all losses, to be logged and checked
    'hooks/finite_gradient_hook.py:_step': 1,  # whether the gradient is finite
    'optim/optimizer/optimizer_wrapper.py:_clip_grad': 1,  # MMEngine logs the norm of the gradient
}


class AsItIs(nn.Module):
    """A preprocessor for data that is ready."""

    def forward(self, data: dict, training: bool) -> dict:
        return data


def make_detector(repo_root, *, layers=3, tasks=1, routing='GateRouting') -> nn.Module:
    config = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py').model
    aqr = Config.fromfile(repo_root / 'configs/_base_/aqr_tiny.py').aqr
    aqr.routing.type = routing
    head = config.pts_bbox_head
    head.transformer.num_layers = layers
    head.update(tasks=TASKS[tasks], aqr=dict(aqr, reliability_weight=1.0))
    torch.manual_seed(0)
    model = MODELS.build(config).train()
    model.data_preprocessor = AsItIs()
    return model


def make_sample(boxes: int, views: int = 2) -> Det3DDataSample:
    looks_along_x = [[88.0, -100, 0, 0], [32, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    shape = (64, 176)
    sample = Det3DDataSample(
        metainfo=dict(
            lidar2img=np.stack([looks_along_x] * views),
            pad_shape=shape,
            img_shape=shape,
            box_type_3d=LiDARInstance3DBoxes,
        )
    )
    truth = torch.rand(boxes, 9) * torch.tensor([10.0, 10, 1, 3, 2, 1, 3, 1, 1]) + 0.5
    sample.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(truth, box_dim=9), labels_3d=torch.arange(boxes) - 1
    )
    return sample


def run_step(model: nn.Module, boxes: tuple[int, ...], tmp_path) -> dict[str, int]:
    """Waits of a training step with all its hooks, from the image branch on."""
    with (
        pytest.MonkeyPatch.context() as patch,
        cuda_attention_on_cpu(patch),
        PretendDevice() as device,
    ):
        model.to(DEVICE)
        bev = torch.randn(len(boxes), 128, 8, 8, device=DEVICE)
        model.extract_pts_feat = lambda inputs: bev
        images = torch.randn(len(boxes), 2, 3, 64, 176, device=DEVICE)
        samples = [make_sample(n).to(DEVICE) for n in boxes]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        wrapper = OptimWrapper(optimizer, clip_grad=dict(max_norm=35, norm_type=2))
        runner = SimpleNamespace(
            model=model,
            optim_wrapper=wrapper,
            log_dir=str(tmp_path),
            message_hub=MessageHub.get_instance('waits'),
        )
        hooks = [RuntimeInfoHook(), FiniteLossHook(), FiniteGradientHook(), BiasScaleHook()]
        for hook in hooks[2:]:
            hook.before_train(runner)
        device.waits.clear()
        health = dict(
            lidar=torch.ones(len(boxes), 8, 8, device=DEVICE),
            camera=torch.ones(len(boxes), 2, 8, 22, device=DEVICE),
        )
        data = dict(inputs=dict(imgs=images, health=health), data_samples=samples)
        outputs = model.train_step(data, wrapper)
        for hook in hooks:
            hook.after_train_iter(runner, 0, data, outputs)
        return dict(device.waits)


@pytest.mark.parametrize(
    ('options', 'boxes'),
    [
        ({}, (3,)),
        ({'layers': 2}, (2, 4, 1)),
        ({'tasks': 3}, (3, 2)),
        ({'routing': 'BiasRouting'}, (3, 0)),
    ],
    ids=['one sample', 'three samples', 'three tasks', 'bias'],
)
def test_the_host_waits_as_often_whatever_the_batch_and_the_model(
    repo_root, tmp_path, options, boxes
):
    waits = run_step(make_detector(repo_root, **options), boxes, tmp_path)
    assert waits == WAITS
