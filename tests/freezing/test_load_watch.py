"""A tensor counts as filled if a checkpoint holds it in the right shape."""

import pickle

import pytest
import torch
from mmengine.runner import load_checkpoint
from spconv.pytorch import SubMConv3d
from torch import nn

from projects.cmt_aqr.freezing.load_watch import LoadWatch


class Detector(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.img_backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.img_neck = nn.Conv2d(2, 2, 1)


@pytest.fixture
def model() -> Detector:
    return Detector()


def fill(model: nn.Module, state_dict: dict, path) -> dict[str, str]:
    torch.save(dict(state_dict=state_dict), path)
    watch = LoadWatch(model, source=path.name)
    load_checkpoint(model, str(path), map_location='cpu')
    watch.close()
    return watch.filled(model)


def test_every_tensor_of_a_whole_checkpoint_is_filled(model, tmp_path):
    state = Detector().state_dict()
    filled = fill(model, state, tmp_path / 'cmt.pth')
    assert filled == dict.fromkeys(state, 'cmt.pth')


def test_prefix_of_a_wrapped_model_is_no_obstacle(model, tmp_path):
    state = {f'module.{name}': value for name, value in Detector().state_dict().items()}
    assert set(fill(model, state, tmp_path / 'cmt.pth')) == set(model.state_dict())


def test_missing_tensors_and_wrong_shapes_are_not_filled(model, tmp_path):
    state = Detector().state_dict()
    del state['img_backbone.0.bias']
    state['img_neck.weight'] = torch.zeros(2, 1, 1, 1)
    filled = fill(model, state, tmp_path / 'cmt.pth')
    assert set(state) - set(filled) == {'img_neck.weight'}
    assert 'img_backbone.0.bias' not in filled


def test_nothing_is_seen_after_close_or_on_a_copy(model):
    watch = LoadWatch(model)
    copy = pickle.loads(pickle.dumps(Detector()))
    copy.load_state_dict(model.state_dict())
    assert watch.filled(model) == watch.filled(copy) == {}
    watch.close()
    model.load_state_dict(copy.state_dict())
    assert watch.filled(model) == {}
    pickle.dumps(model)


def test_sparse_kernel_is_filled_from_either_layout_but_not_from_another_shape(tmp_path):
    def build() -> nn.Module:
        return nn.Sequential(SubMConv3d(2, 4, kernel_size=3, bias=False))

    kernel = build().state_dict()['0.weight']
    kernels = dict(spconv2=kernel, spconv1=kernel.permute(1, 2, 3, 4, 0), other=kernel[:3])
    filled = {
        name: set(fill(build(), {'0.weight': kernel}, tmp_path / f'{name}.pth'))
        for name, kernel in kernels.items()
    }
    assert filled == dict(spconv2={'0.weight'}, spconv1={'0.weight'}, other=set())
