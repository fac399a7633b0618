"""Each patch does what its docstring says, on the installed versions."""

import os
import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.cnn import build_norm_layer
from mmcv.ops import SyncBatchNorm, get_compiling_cuda_version
from mmengine.model import convert_sync_batchnorm
from torch import nn
from toy_runner import ToyModel, make_runner

from projects.cmt_aqr import compat

spconv = pytest.importorskip('spconv.pytorch')

GRID = (5, 6, 7)


class RunsCode:
    """Unpickled without protection, it sets an environment variable."""

    def __reduce__(self) -> tuple:
        return exec, ("import os; os.environ['CMT_AQR_TEST_CODE_RAN'] = 'yes'",)


@pytest.fixture(autouse=True)
def _no_code_has_run(monkeypatch):
    monkeypatch.delenv('CMT_AQR_TEST_CODE_RAN', raising=False)


def code_ran() -> bool:
    return 'CMT_AQR_TEST_CODE_RAN' in os.environ


def malicious_checkpoint(path) -> str:
    torch.save(dict(state_dict=ToyModel().state_dict(), meta=dict(extra=RunsCode())), path)
    return str(path)


def test_the_malicious_checkpoint_of_these_tests_is_one(tmp_path):
    torch.load(malicious_checkpoint(tmp_path / 'bad.pth'), weights_only=False)
    assert code_ran()


def patched_functions() -> list:
    from mmengine.runner import Runner, checkpoint

    return [
        checkpoint.load_url,
        Runner.resume,
        sys.modules['spconv.pytorch.ops'].get_current_stream,
        spconv.SparseConv3d._conv_forward,
        spconv.SparseModule._load_from_state_dict,
        SyncBatchNorm.__init__,
    ]


def test_a_second_call_changes_nothing():
    before = patched_functions()
    compat.apply()
    assert patched_functions() == before
    assert all(function._replaced_by == compat.__name__ for function in before)


def test_absent_packages_are_left_out(monkeypatch):
    monkeypatch.setattr(compat, 'find_spec', lambda name: None)
    monkeypatch.setattr(compat, '_replace', lambda *args: pytest.fail('nothing to patch'))
    compat.apply()


@pytest.mark.parametrize('version', ['2.5.1', '1.13.0+cu117'])
def test_torch_that_loads_code_is_refused(monkeypatch, version):
    monkeypatch.setattr(compat, 'torch', SimpleNamespace(__version__=version))
    with pytest.raises(ImportError, match=r'install torch 2\.6 or newer'):
        compat.require_safe_torch_load()


def test_cudnn_is_not_among_the_kernels_of_attention():
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        compat.apply()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(False)


@pytest.mark.skipif(
    get_compiling_cuda_version() != 'not available', reason='mmcv has its CUDA operators'
)
def test_mmcv_s_sync_bn_is_refused_when_it_is_built():
    with pytest.raises(RuntimeError, match=r"without CUDA operators.*sync_bn='torch'"):
        convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), 'mmcv')
    with pytest.raises(RuntimeError, match='without CUDA operators'):
        build_norm_layer(dict(type='MMSyncBN'), 3)
    converted = convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)), 'torch')
    assert isinstance(converted[0], nn.SyncBatchNorm)


# Checkpoints.


def test_resume_equals_training_without_a_stop(tmp_path):
    make_runner(tmp_path / 'whole', epochs=3).train()
    half_way = str(tmp_path / 'whole' / 'epoch_2.pth')
    make_runner(tmp_path / 'resumed', epochs=3, load_from=half_way, resume=True).train()

    whole = torch.load(tmp_path / 'whole' / 'epoch_3.pth')
    resumed = torch.load(tmp_path / 'resumed' / 'epoch_3.pth')
    assert whole['state_dict']['line.weight'].item() > 0
    for part in ('state_dict', 'optimizer'):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
    assert resumed['param_schedulers'] == whole['param_schedulers']
    losses, counts = whole['message_hub']['log_scalars']['train/loss'].data
    assert (len(losses), counts.sum()) == (6, 6)
    np.testing.assert_array_equal(
        resumed['message_hub']['log_scalars']['train/loss'].data[0], losses
    )


@pytest.mark.parametrize('resume', [False, True], ids=['load_from', 'resume'])
def test_a_checkpoint_cannot_run_code(tmp_path, resume):
    path = malicious_checkpoint(tmp_path / 'bad.pth')
    runner = make_runner(tmp_path / 'run', load_from=path, resume=resume)
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        runner.train()
    assert not code_ran()


def test_pretrained_weights_cannot_run_code(tmp_path):
    path = malicious_checkpoint(tmp_path / 'bad.pth')
    model = ToyModel()
    model.init_cfg = dict(type='Pretrained', checkpoint=path)
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        model.init_weights()
    assert not code_ran()


def test_a_file_from_the_web_cannot_run_code(tmp_path, monkeypatch):
    from mmengine.runner import load_checkpoint

    def download(url: str, target: str, *args, **kwargs) -> None:
        malicious_checkpoint(target)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(pickle.UnpicklingError, match='Weights only load failed'):
        load_checkpoint(ToyModel(), 'https://example.com/bad.pth')
    assert not code_ran()


def test_resume_does_not_run_the_config_in_a_checkpoint(tmp_path):
    make_runner(tmp_path, epochs=1).train()
    checkpoint = torch.load(tmp_path / 'epoch_1.pth')
    checkpoint['meta']['config'] = "import os\nos.environ['CMT_AQR_TEST_CODE_RAN'] = 'yes'\n"
    torch.save(checkpoint, tmp_path / 'changed.pth')

    options = dict(load_from=str(tmp_path / 'changed.pth'), resume=True)
    runner = make_runner(tmp_path / 'run', epochs=2, **options)
    runner.train()

    assert runner.epoch == 2
    assert not code_ran()


@pytest.mark.parametrize('attribute', [(os, 'system'), (dict, 'min'), ('HistoryBuffer', 'min')])
def test_the_stand_in_for_getattr_finds_nothing_else(attribute):
    with pytest.raises(pickle.UnpicklingError, match='are allowed'):
        compat._statistics_function(*attribute)


@pytest.mark.parametrize('name', ['__init__', '__class__', 'update', '_statistics_methods'])
def test_the_stand_in_for_getattr_finds_statistics_only(name):
    from mmengine.logging import HistoryBuffer

    assert compat._statistics_function(HistoryBuffer, 'min') is HistoryBuffer.min
    with pytest.raises(pickle.UnpicklingError, match=name):
        compat._statistics_function(HistoryBuffer, name)


@pytest.mark.parametrize('value', [np.float64(0.5), np.float32(0.5), np.arange(3), np.array(['a'])])
def test_numpy_values_beside_the_weights_are_read(tmp_path, value):
    torch.save(dict(value=value), tmp_path / 'values.pth')
    loaded = torch.load(tmp_path / 'values.pth')['value']
    np.testing.assert_array_equal(loaded, value)
    assert loaded.dtype == value.dtype


# spconv.


def sparse_input(channels: int) -> spconv.SparseConvTensor:
    """Two samples with 40 % of the cells filled."""
    batch, *cells = torch.nonzero(torch.rand(2, *GRID) < 0.4).T
    indices = torch.stack([batch, *cells], dim=1).int()
    features = torch.randn(len(indices), channels, requires_grad=True)
    return spconv.SparseConvTensor(features, indices, list(GRID), batch_size=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the patch is for machines without CUDA')
def test_sparse_convolutions_are_the_same_whatever_the_threads():
    """On several threads spconv itself loses rows; this many voxels showed it within ten tries."""
    indices = torch.nonzero(torch.rand(1, 20, 60, 60) < 0.15).int()
    features = torch.randn(len(indices), 16)
    layer = spconv.SubMConv3d(16, 16, 3, bias=False)

    def run() -> tuple[torch.Tensor, ...]:
        given = features.clone().requires_grad_()
        out = layer(spconv.SparseConvTensor(given, indices, [20, 60, 60], batch_size=1)).features
        return out.detach(), *torch.autograd.grad(out.square().sum(), [given, layer.weight])

    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        expected = run()
        torch.set_num_threads(4)
        for _ in range(20):
            for ours, theirs in zip(run(), expected, strict=True):
                limit = 1e-5 * theirs.abs().max().item()
                torch.testing.assert_close(ours, theirs, rtol=0, atol=limit)
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize('layer', [spconv.SubMConv3d, spconv.SparseConv3d])
@torch.no_grad()
def test_a_sparse_bias_is_added_in_evaluation_mode(layer):
    with_bias, without = layer(4, 6, 3).eval(), layer(4, 6, 3, bias=False).eval()
    without.weight.copy_(with_bias.weight)
    nn.init.normal_(with_bias.bias)
    x = sparse_input(4)
    assert torch.equal(with_bias(x).features, without(x).features + with_bias.bias)


def sparse_layers() -> nn.Module:
    return spconv.SparseSequential(spconv.SubMConv3d(4, 6, 3), nn.BatchNorm1d(6))


@pytest.mark.parametrize('as_plain_dict', [True, False])
def test_kernels_that_fit_are_loaded_as_they_are(as_plain_dict):
    source, target = sparse_layers(), sparse_layers()
    state = source.state_dict()
    target.load_state_dict(dict(state) if as_plain_dict else state)
    torch.testing.assert_close(target.state_dict(), state, rtol=0, atol=0)


def test_kernels_of_spconv_1_are_permuted():
    source, target = sparse_layers(), sparse_layers()
    state = dict(source.state_dict())
    state['0.weight'] = state['0.weight'].permute(1, 2, 3, 4, 0)  # (kz, ky, kx, in, out)
    target.load_state_dict(state)
    assert torch.equal(target[0].weight, source[0].weight)


def test_kernels_of_another_size_are_an_error():
    state = dict(spconv.SparseSequential(spconv.SubMConv3d(4, 8, 3)).state_dict())
    with pytest.raises(RuntimeError, match='size mismatch'):
        spconv.SparseSequential(spconv.SubMConv3d(4, 6, 3)).load_state_dict(state)


# Activation checkpointing.


def test_what_a_runner_checkpoints_still_learns_from_an_input_without_gradient():
    from mmengine.runner.activation_checkpointing import turn_on_activation_checkpointing

    model = nn.ModuleDict({'block': nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))})
    image = torch.randn(4, 3)
    expected = torch.autograd.grad(model['block'](image).sum(), model.parameters())
    turn_on_activation_checkpointing(model, ['block'])
    found = torch.autograd.grad(model['block'](image).sum(), model.parameters())
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ('counts', 'enable', 'expected'), [(1, True, 0.02), (4, True, 0.08), (4, False, 0.01)]
)
def test_the_learning_rate_is_scaled_by_accumulated_batches_too(tmp_path, counts, enable, expected):
    runner = make_runner(tmp_path, auto_scale_lr=dict(enable=enable, base_batch_size=1))
    wrapper = dict(optimizer=dict(type='AdamW', lr=0.01), accumulative_counts=counts)
    wrapper = runner.build_optim_wrapper(dict(type='OptimWrapper', **wrapper))
    runner.scale_lr(wrapper, runner.auto_scale_lr)  # batches of two samples
    assert wrapper.optimizer.param_groups[0]['lr'] == pytest.approx(expected)


@pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU has the kernels')
def test_a_cuda_build_of_spconv_runs_without_a_gpu(monkeypatch):
    monkeypatch.setattr(spconv.conv, 'CPU_ONLY_BUILD', False)
    assert spconv.SubMConv3d(4, 4, 3).algo is not spconv.ConvAlgo.Native
    compat.train_spconv_without_cuda()
    assert spconv.SubMConv3d(4, 4, 3).algo is spconv.ConvAlgo.Native
