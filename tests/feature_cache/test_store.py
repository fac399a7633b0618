"""Entries are read as they were written, or not at all."""

import os
import shutil

import numpy as np
import pytest
import torch

from projects.cmt_aqr.feature_cache.store import Entry, FeatureStore

KEY = 'ab' * 32
FACTS = dict(
    lidar2img=np.eye(4)[None] / 3,
    img_shape=(64, 176),
    names=['CAM_FRONT'],
    scale=np.float64(0.1),
    sizes={'a.jpg': 5, 'b.jpg': None},
)


def maps() -> list[torch.Tensor]:
    return [torch.randn(2, 3, 4), torch.randn(5, 2, 2)]


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    return FeatureStore(directory=tmp_path)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16', 'float32'])
def test_an_entry_is_read_in_the_dtype_of_the_store(tmp_path, dtype):
    store = FeatureStore(directory=tmp_path, dtype=dtype)
    written = maps()
    size = store.write('camera', KEY, Entry(written, FACTS))
    assert size == store.path('camera', KEY).stat().st_size
    read = store.read('camera', KEY)
    assert [m.dtype for m in read.maps] == [getattr(torch, dtype)] * 2
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(read.maps, written, strict=True))
    assert read.facts.keys() == FACTS.keys()
    assert np.array_equal(read.facts['lidar2img'], FACTS['lidar2img'])
    assert read.facts['img_shape'] == (64, 176)
    assert read.facts['sizes'] == FACTS['sizes']


def test_a_missing_entry_is_an_error(store):
    store.write('camera', KEY, Entry(maps(), {}))
    with pytest.raises(FileNotFoundError):
        store.read('lidar', KEY)


def flip(content: bytes, where: int) -> bytes:
    return content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :]


@pytest.mark.parametrize(
    'damage',
    [
        lambda content: content[:-7],
        lambda content: content[:20],
        lambda content: b'',
        lambda content: flip(content, -3),
        lambda content: flip(content, content.index(b'CAM_FRONT')),
        lambda content: flip(content, 2),
        lambda content: bytes(len(content)),
    ],
    ids=['cut off', 'header only', 'empty', 'a bit', 'a fact', 'header length', 'zeros'],
)
def test_damage_is_an_error_with_its_remedy(store, damage):
    entry = Entry(maps(), dict(names=['CAM_FRONT']))
    store.write('camera', KEY, entry)
    path = store.path('camera', KEY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf'{path} are damaged .*: delete the file and fill'):
        store.read('camera', KEY)
    store.write('camera', KEY, entry)
    assert store.read('camera', KEY).facts == entry.facts


def test_an_entry_under_the_name_of_another_is_damaged(store):
    store.write('camera', KEY, Entry(maps(), {}))
    other = KEY[:-1] + 'c'
    os.rename(store.path('camera', KEY), store.path('camera', other))
    with pytest.raises(ValueError, match='wrong checksum'):
        store.read('camera', other)


def test_existing_entries_count_against_the_limit(tmp_path):
    store = FeatureStore(directory=tmp_path, max_gigabytes=20e-6)
    store.check_room(20_000)
    size = store.write('lidar', KEY, Entry([torch.zeros(5000)], {}))
    store.check_room(20_000 - size)
    with pytest.raises(
        ValueError, match=r'needs 0\.\d* GB .* max_gigabytes is 2e-05: raise it, or del'
    ):
        store.check_room(20_001 - size)


def test_files_that_others_write_or_remove_do_not_count(tmp_path, monkeypatch):
    store = FeatureStore(directory=tmp_path, max_gigabytes=20e-6)
    store.write('lidar', KEY, Entry([torch.zeros(5000)], {}))
    path = store.path('lidar', KEY)
    shutil.copy(path, path.with_name(f'.unfinished.{path.name}'))
    path.with_name('gone.safetensors').symlink_to('nothing')
    store.check_room(20_000 - path.stat().st_size)


def test_values_that_half_precision_does_not_hold_are_refused(store):
    with pytest.raises(ValueError, match=r"up to 1e\+06 .* as float16: set dtype='bfloat16'"):
        store.write('lidar', KEY, Entry([torch.tensor([1e6])], {}))
    with pytest.raises(ValueError, match=r'up to nan cannot be cached as float16$'):
        store.write('lidar', KEY, Entry([torch.tensor([torch.nan])], {}))


def test_facts_that_cannot_be_read_again_are_refused(store):
    with pytest.raises(ValueError, match=r'only plain values and arrays .*object'):
        store.write('lidar', KEY, Entry(maps(), dict(thing=object())))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(dtype='int8'), "'int8', not one of"),
        (dict(max_gigabytes=0), 'is 0, not > 0'),
    ],
)
def test_wrong_options_are_named(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        FeatureStore(directory=tmp_path, **options)
