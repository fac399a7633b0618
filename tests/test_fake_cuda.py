"""The head on fake CUDA tensors, which have a device but no values: no GPU is needed.

They find tensors that would be on the CPU beside others on the GPU. Only a build of torch with CUDA
can make such tensors. The router is left out: how many tokens its windows hold depends on values.
"""

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from projects.cmt_aqr import head as head_module
from projects.cmt_aqr.cameras import Cameras, batch_cameras

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason='torch is built without CUDA')


def fake_cuda(value: object) -> object:
    """A fake CUDA tensor like ``value``; what is not a tensor is returned as it is."""
    if not isinstance(value, torch.Tensor):
        return value
    return torch.empty(value.shape, dtype=value.dtype, device='cuda')


def move_to_fake_cuda(model: nn.Module) -> None:
    """Replace parameters and buffers, as a move to the GPU would; other tensors stay on the CPU."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(fake_cuda(value), value.requires_grad)
        for name, value in module._buffers.items():
            module._buffers[name] = fake_cuda(value)


@pytest.mark.parametrize('training', [False, True], ids=['test', 'train'])
def test_the_head_makes_no_tensor_on_the_cpu(repo_root, monkeypatch, training):
    model = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py').model
    head = MODELS.build(model).pts_bbox_head.train(training)
    looks_along_x = [[88.0, -100, 0, 0], [32, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    metas = [dict(lidar2img=np.array([looks_along_x] * 6), pad_shape=(64, 176))] * 2
    # Prepared on the CPU, where it counts the cameras of the samples.
    cameras = batch_cameras(metas, like=torch.empty(2, 6))
    with FakeTensorMode(shape_env=ShapeEnv()):
        move_to_fake_cuda(head)
        bev = torch.empty(2, model.pts_bbox_head.in_channels, 32, 32, device='cuda')
        images = torch.empty(2, 6, model.pts_bbox_head.hidden_dim, 8, 22, device='cuda')
        on_cuda = Cameras(*(fake_cuda(value) for value in cameras))
        monkeypatch.setattr(head_module, 'batch_cameras', lambda metas, like: on_cuda)
        outputs = head(bev, images, metas)
    values = [value for task in outputs.tasks for value in task.values()]
    assert {value.device.type for value in values} == {'cuda'}
