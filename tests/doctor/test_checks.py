"""Every check passes here, and fails once what it checks computes something slightly wrong."""

import pkgutil
import re
from functools import partial
from pathlib import Path

import pytest
import spconv.pytorch
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from projects.cmt_aqr import voxelize
from projects.cmt_aqr.doctor import (
    attention,
    decoder,
    operators,
    processes,
    sparse,
    training,
    versions,
    voxels,
)
from projects.cmt_aqr.doctor.processes import _work
from projects.cmt_aqr.transformer import CrossAttention, backends
from projects.cmt_aqr.transformer.backends import grouped, window

CPU = torch.device('cpu')
FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


def attend(dtype):
    return partial(attention.check_attention, size='small', dtype=dtype)


def decode(dtype):
    return partial(decoder.check_decoder, size='tiny', dtype=dtype)


def convolve(*, strided):
    return partial(sparse.check_sparse, strided=strided, dtype=FLOAT32)


def scale(factor):
    """A change of a function whose result it multiplies; of the first if there are several."""

    def change(function):
        def wrong(*args, **kwargs):
            result = function(*args, **kwargs)
            if isinstance(result, tuple):
                return result[0] * factor, *result[1:]
            return result * factor

        return wrong

    return change


def without_gradient_of_lse(function):
    def wrong(*args, **kwargs):
        out, lse = function(*args, **kwargs)
        return out, lse.detach()

    return wrong


def without_absence(function):
    def wrong(*args, token_mask, **kwargs):
        return function(*args, token_mask=None, **kwargs)

    return wrong


def one_row_wrong(function):
    """The last query gets the output of the one before."""

    def wrong(*args, **kwargs):
        out = function(*args, **kwargs)
        return torch.cat([out[..., :-1, :], out[..., -2:-1, :]], dim=-2)

    return wrong


def flip_first(function):
    """One answer of many is another."""

    def wrong(*args, **kwargs):
        result = function(*args, **kwargs).clone()
        result[0, 0, 0] = 1 - result[0, 0, 0]
        return result

    return wrong


def last_point_lost(function):
    def wrong(self, clouds):
        return function(self, [cloud[:-1] for cloud in clouds])

    return wrong


def wrong_when_frozen(function):
    def wrong(self, *args, **kwargs):
        out = function(self, *args, **kwargs)
        return out if self.training else out.replace_feature(out.features * 1.0001)

    return wrong


# What is checked, the function that is changed, and the change.
SABOTAGE = {
    'versions': (versions.check_versions, (versions, 'installed_version'), lambda f: lambda _: '0'),
    'torch alone': (versions.check_torch_alone, (torch, '__version__'), lambda _: '2.5.1'),
    'points in boxes': (
        operators.check_points_in_boxes,
        'mmcv.ops.points_in_boxes_cpu',
        flip_first,
    ),
    'overlap of boxes': (operators.check_box_iou, 'mmcv.ops.box_iou_rotated', scale(1.001)),
    'submanifold convolution': (
        convolve(strided=False),
        (spconv.pytorch.SubMConv3d, 'forward'),
        wrong_when_frozen,
    ),
    'strided convolution': (
        convolve(strided=True),
        (spconv.pytorch.SparseConv3d, 'forward'),
        wrong_when_frozen,
    ),
    'gradients of a convolution': (
        convolve(strided=True),
        'spconv.pytorch.ops.indice_conv_backward',
        scale(1.0001),
    ),
    'voxels': (voxels.check_voxels, (voxelize.Voxelizer, 'forward'), last_point_lost),
    'log-sum-exp': (attend(FLOAT32), (grouped, 'attention_with_lse'), without_gradient_of_lse),
    'window': (attend(FLOAT32), (window, 'pair_sum'), scale(1.001)),
    'window in half precision': (attend(BFLOAT16), (window, 'pair_sum'), scale(1.5)),
    'decoder': (decode(FLOAT32), (window, 'pair_dot'), scale(1.001)),
    'decoder in mixed precision': (decode(BFLOAT16), (window, 'pair_dot'), scale(-1)),
    'training step': (
        partial(training.check_training, amp=False),
        (CrossAttention, 'forward'),
        scale(1.01),
    ),
    'training step in mixed precision': (
        partial(training.check_training, amp=True),
        (CrossAttention, 'forward'),
        scale(2),
    ),
}
for backend in ('dense', 'folded', 'grouped', 'window'):
    for name, change, dtype in (
        ('0.1 % more', scale(1.001), FLOAT32),
        ('a wrong row', one_row_wrong, FLOAT32),
        ('absent tokens attended to', without_absence, FLOAT32),
        ('5 % more', scale(1.05), BFLOAT16),
    ):
        SABOTAGE[f'{backend}: {name}'] = (
            attend(dtype),
            (backends.BACKENDS, backend),
            change,
        )


@pytest.fixture(autouse=True)
def _tiny_decoder(monkeypatch):
    """The decoder's check at a size for tests."""
    monkeypatch.setitem(decoder.SIZES, 'tiny', attention.ALL_SIZES['small'])


def sabotage(monkeypatch, place, change):
    """Change a function: of a dictionary, of an object, or by its dotted name."""
    if isinstance(place, str):
        owner, _, name = place.rpartition('.')
        place = pkgutil.resolve_name(owner), name
    owner, name = place
    if isinstance(owner, dict):
        monkeypatch.setitem(owner, name, change(owner[name]))
    else:
        monkeypatch.setattr(owner, name, change(getattr(owner, name)))


@pytest.mark.parametrize(
    'check',
    [
        versions.check_versions,
        versions.check_torch_alone,
        versions.check_device,
        operators.check_points_in_boxes,
        operators.check_box_iou,
        *(convolve(strided=strided) for strided in (False, True)),
        voxels.check_voxels,
        *(attend(dtype) for dtype in (FLOAT32, BFLOAT16, torch.float16)),
        *(decode(dtype) for dtype in (FLOAT32, BFLOAT16)),
        *(partial(training.check_training, amp=amp) for amp in (False, True)),
    ],
)
def test_passes_here(check):
    result = check(CPU)
    assert result.passed, (result.faults, result.worst)
    assert not result.skipped


@pytest.mark.parametrize(('check', 'place', 'change'), SABOTAGE.values(), ids=SABOTAGE)
def test_fails_where_its_subject_is_wrong(monkeypatch, check, place, change):
    sabotage(monkeypatch, place, change)
    assert not check(CPU).passed


def skewed_work(rank, folder, backend):
    """As the check's own, but the processes agree on gradients that are 0.1 % too large."""

    def parallel(model):
        ddp = DistributedDataParallel(model)
        ddp.register_comm_hook(
            None,
            lambda _, bucket: allreduce_hook(None, bucket).then(lambda sums: sums.value() * 1.001),
        )
        return ddp

    processes.DistributedDataParallel = parallel
    _work(rank, folder, backend)


def stopping_work(rank, folder, backend):
    raise RuntimeError(f'process {rank} stops')


@pytest.mark.slow
def test_two_processes_pass_here():
    result = processes.check_processes(CPU)
    assert result.passed, (result.faults, result.worst)
    assert len(result.comparisons) > 80


@pytest.mark.slow
@pytest.mark.parametrize(
    ('work', 'fault'), [('skewed_work', None), ('stopping_work', r'process \d stops')]
)
def test_two_processes_that_are_wrong_fail(monkeypatch, work, fault):
    """New processes find what they do by the name of this file."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import test_checks

    monkeypatch.setattr(processes, '_work', getattr(test_checks, work))
    result = processes.check_processes(CPU)
    assert not result.passed
    if fault is None:
        assert result.comparisons
        assert not result.faults
    else:
        assert re.search(fault, result.faults[0])


@pytest.mark.slow
def test_processes_that_hang_are_ended(monkeypatch):
    monkeypatch.setattr(processes, 'SECONDS', 0)
    assert processes.check_processes(CPU).faults == ['the processes did not end within 0 s']


def test_a_gpu_without_bfloat16_is_skipped(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    result = attend(BFLOAT16)(torch.device('cuda'))
    assert result.skipped
    assert result.passed


def test_versions_for_a_gpu_are_known_on_a_machine_without_one(monkeypatch):
    installed = dict(versions.read_pins('cuda').values())
    monkeypatch.setattr(versions, 'installed_version', installed.get)
    result = versions.check_versions(torch.device('cpu'))
    assert result.faults == []
    assert 'spconv-cu126 2.3.8' in result.what
