"""Entries come back as they were written, or not at all."""

import multiprocessing
import os

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
def test_an_entry_comes_back_in_the_precision_of_the_store(tmp_path, dtype):
    store = FeatureStore(directory=tmp_path, dtype=dtype)
    written = maps()
    assert store.write('camera', KEY, Entry(written, FACTS))
    read = store.read('camera', KEY)
    assert [m.dtype for m in read.maps] == [getattr(torch, dtype)] * 2
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(read.maps, written, strict=True))
    assert read.facts.keys() == FACTS.keys()
    assert np.array_equal(read.facts['lidar2img'], FACTS['lidar2img'])
    assert read.facts['img_shape'] == (64, 176)
    assert read.facts['sizes'] == FACTS['sizes']


def test_what_was_not_written_is_none_without_a_warning(store, log):
    assert store.read('camera', KEY) is None
    store.write('camera', KEY, Entry(maps(), {}))
    assert store.read('lidar', KEY) is None
    assert not log


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
def test_damage_is_noticed_and_repaired(store, damage, log):
    entry = Entry(maps(), dict(names=['CAM_FRONT']))
    store.write('camera', KEY, entry)
    path = store.path('camera', KEY)
    path.write_bytes(damage(path.read_bytes()))
    assert store.read('camera', KEY) is None
    assert f'{path} is damaged and will be made anew' in '\n'.join(log)
    store.write('camera', KEY, entry)
    assert store.read('camera', KEY).facts == entry.facts


def test_an_entry_under_the_name_of_another_is_damage(store):
    store.write('camera', KEY, Entry(maps(), {}))
    other = KEY[:-1] + 'c'
    os.rename(store.path('camera', KEY), store.path('camera', other))
    assert store.read('camera', other) is None


def test_the_limit_is_kept_and_said_once(tmp_path, log):
    store = FeatureStore(directory=tmp_path, dtype='float32', max_gigabytes=25e-6)
    large = Entry([torch.zeros(1000, 2)], {})  # 8 kB
    written = [store.write('camera', f'{n:064x}', large) for n in range(5)]
    assert written == [True, True, True, False, False]
    assert store.size() <= 25_000
    assert sum('raise that, or delete folders' in line for line in log) == 1
    assert 'of max_gigabytes=2.5e-05' in '\n'.join(log)


def test_what_is_already_there_counts_against_the_limit(tmp_path):
    FeatureStore(directory=tmp_path).write('lidar', KEY, Entry([torch.zeros(9000)], {}))
    store = FeatureStore(directory=tmp_path, max_gigabytes=20e-6)
    assert not store.write('camera', KEY, Entry([torch.zeros(9000)], {}))


def test_space_made_meanwhile_is_used(tmp_path):
    store = FeatureStore(directory=tmp_path, dtype='float32', max_gigabytes=20e-6)
    large = Entry([torch.zeros(2000, 2)], {})  # 16 kB
    assert store.write('camera', KEY, large)
    store.path('camera', KEY).unlink()
    assert store.write('camera', KEY, large)


def test_a_folder_that_cannot_be_written_to_stops_no_run(tmp_path, log):
    (tmp_path / 'file').write_text('')
    store = FeatureStore(directory=tmp_path / 'file')
    assert not store.write('camera', KEY, Entry(maps(), {}))
    assert 'cannot be written to' in '\n'.join(log)


def test_values_that_half_precision_does_not_hold_are_refused(store):
    with pytest.raises(ValueError, match=r"up to 1e\+06 .* as float16: set dtype='bfloat16'"):
        store.write('lidar', KEY, Entry([torch.tensor([1e6])], {}))
    with pytest.raises(ValueError, match=r'up to nan cannot be cached as float16$'):
        store.write('lidar', KEY, Entry([torch.tensor([torch.nan])], {}))


def test_facts_that_do_not_come_back_are_refused(store):
    with pytest.raises(ValueError, match=r'no plain value or array: .*object'):
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


def write_again_and_again(directory, value):
    store = FeatureStore(directory=directory, dtype='float32')
    for _ in range(30):
        assert store.write('camera', KEY, Entry([torch.full((5000,), value)], dict(value=value)))


def test_processes_that_write_the_same_entry_leave_a_whole_one_at_all_times(tmp_path, log):
    fork = multiprocessing.get_context('fork')
    writers = [fork.Process(target=write_again_and_again, args=(tmp_path, v)) for v in (1.0, 2.0)]
    for writer in writers:
        writer.start()
    store, seen = FeatureStore(directory=tmp_path), 0
    while any(writer.is_alive() for writer in writers):
        entry = store.read('camera', KEY)
        if entry is not None:
            seen += 1
            assert entry.maps[0].unique().tolist() == [entry.facts['value']]
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen
    assert 'damaged' not in '\n'.join(log)
    assert [path.name for path in tmp_path.rglob('*') if path.is_file()] == [f'{KEY}.safetensors']
