"""Which exceptions are mistakes of the user, and their lines."""

import errno

import pytest
import torch
from mmdet3d.registry import MODELS
from torch.utils.data import DataLoader, Dataset

from projects.cmt_aqr.cli.explain import explain
from projects.cmt_aqr.data_preparation.old_infos import check_old
from projects.cmt_aqr.usage_error import UsageError


def explained(function) -> str | None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function()
    return explain(caught.value)


def test_a_usage_error_is_one_line():
    assert explain(UsageError('a\n  b')) == 'a b'


def test_a_raise_of_this_package_is_meant_for_the_user():
    assert explained(lambda: check_old({}, 'x.pkl')) == (
        "x.pkl must hold infos and metadata with nuScenes' version"
    )


def test_an_error_of_python_inside_this_package_is_a_bug():
    assert explained(lambda: check_old(dict(infos=3, metadata=dict(version=1)), 'x.pkl')) is None
    assert explained(lambda: [][1]) is None


def test_an_error_of_building_names_the_classes_around():
    assert explained(lambda: MODELS.build(dict(type='CmtDetecter'))) == (
        'CmtDetecter is not a registered model; did you mean CmtDetector?'
    )
    assert explained(lambda: MODELS.build(dict(type='SECONDFPN', in_chanels=[1]))) == (
        'SECONDFPN has no option in_chanels; did you mean in_channels?'
    )


@pytest.mark.parametrize(
    'error',
    [
        OSError(errno.ENOSPC, 'No space left on device', 'x'),
        RuntimeError('[enforce fail] PytorchStreamWriter failed writing file data/0'),
    ],
)
def test_a_full_disk_says_how_to_go_on(error):
    assert explain(error).startswith('the disk is full (')
    assert '--resume' in explain(error)


def test_too_little_memory_of_a_gpu_names_the_settings():
    message = explain(torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.\nx'))
    assert message.startswith('CUDA out of memory. Tried to allocate 2 GiB. Lower train_dataloader')


class Samples(Dataset):
    """One sample, whose loading fails on purpose or by a bug."""

    def __init__(self, load) -> None:
        self.load = load

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        self.load()


def load_old_infos() -> None:
    check_old({}, 'x.pkl')


def load_nothing() -> None:
    [][1]


def test_errors_of_data_workers_are_told_apart_in_the_same_way():
    def load(function):
        return lambda: next(iter(DataLoader(Samples(function), num_workers=1)))

    assert explained(load(load_old_infos)) == (
        "x.pkl must hold infos and metadata with nuScenes' version"
    )
    assert explained(load(load_nothing)) is None
