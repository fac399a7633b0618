"""An mmcv with CPU operators suffices on a GPU too, so that no CUDA compiler is needed."""

import pytest
import torch
from mmcv import _ext
from mmdet.models.losses import FocalLoss
from mmdet3d.registry import MODELS
from mmengine.config import Config
from test_detector import batch, cloud

CONFIGS = (
    'cmt_tiny_synthetic',
    'cmt_voxel0100_r50_800x320_cbgs',
    'cmt_voxel0075_vov_1600x640_cbgs',
)


@pytest.fixture
def called(monkeypatch) -> set:
    """Names of mmcv's compiled operators that run during the test."""
    names = set()

    def recorded(name, operator):
        return lambda *args, **kwargs: names.add(name) or operator(*args, **kwargs)

    for name, operator in vars(_ext).items():
        if callable(operator):
            monkeypatch.setattr(_ext, name, recorded(name, operator))
    return names


@pytest.fixture
def _losses_on_a_gpu(monkeypatch):
    """Let mmdet's focal loss find a GPU and tensors on it, whose values stay on the CPU."""
    forward = FocalLoss.forward

    def with_gpu(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, 'is_available', lambda: True)
            patch.setattr(torch.Tensor, 'is_cuda', property(lambda _: True), raising=False)
            return forward(*args, **kwargs)

    monkeypatch.setattr(FocalLoss, 'forward', with_gpu)


@pytest.fixture
def detector(repo_root):
    return MODELS.build(Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py').model)


@pytest.mark.usefixtures('_losses_on_a_gpu')
def test_a_training_step_and_a_prediction_call_no_operator(detector, called):
    data = detector.data_preprocessor(batch([cloud(), cloud()]), training=True)
    called.clear()
    sum(detector(**data, mode='loss').values()).backward()
    detector.eval()
    with torch.no_grad():
        detector(**data, mode='predict')
    assert called == set()


@pytest.mark.usefixtures('_losses_on_a_gpu')
def test_mmdet_s_focal_loss_of_label_indices_would_call_one(called):
    """The test above can fail."""
    with pytest.raises(RuntimeError, match='sigmoid_focal_loss'):
        FocalLoss()(torch.zeros(2, 3), torch.tensor([0, 3]))
    assert called == {'sigmoid_focal_loss_forward'}


@pytest.mark.parametrize('name', CONFIGS)
def test_no_layer_of_a_shipped_model_is_mmcv_s(repo_root, name):
    model = MODELS.build(Config.fromfile(repo_root / f'configs/cmt/{name}.py').model)
    packages = {type(module).__module__ for module in model.modules()}
    assert not {package for package in packages if package.startswith('mmcv.ops')}
