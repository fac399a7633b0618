"""The database is the same however it is made, and has what mmdet3d's has but ignored objects."""

import copy
import hashlib
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet3d.datasets import NuScenesDataset
from mmengine.fileio import load

from projects.cmt_aqr.data_preparation import info_files, object_database
from projects.cmt_aqr.data_preparation.object_database import collect_objects as collect
from projects.cmt_aqr.datasets.infos import Infos, read_infos
from projects.cmt_aqr.datasets.object_sampling import ObjectDatabase
from projects.cmt_aqr.datasets.reading import MissingFileError


@pytest.fixture(scope='module')
def infos(synthetic_root) -> Infos:
    return read_infos(synthetic_root / 'nuscenes_infos_train.pkl')


def collect_objects(root, folder, infos, **options) -> bool:
    prefixes = {camera: f'samples/{camera}' for camera in infos.entries[0]['images']}
    prefixes.update(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP')
    return collect(root, folder, infos, data_prefix=prefixes, **options)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch) -> None:
    """A shard for each of the six samples."""
    monkeypatch.setattr(object_database, 'SAMPLES_PER_SHARD', 1)


@pytest.fixture
def whole(synthetic_root, infos, tmp_path) -> dict[str, str]:
    """Files and digests of the database, made by one process without a break."""
    assert collect_objects(synthetic_root, tmp_path / 'whole', infos)
    return digests(tmp_path / 'whole')


def digests(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob('*'))
    }


def test_files(whole):
    shards = [f'shard_{number:05d}.bin' for number in range(6)]
    assert sorted(whole) == sorted(['database.json', 'index.npy', *shards])


def test_two_workers_make_what_one_makes(synthetic_root, infos, tmp_path, whole):
    assert collect_objects(synthetic_root, tmp_path / 'two', infos, workers=2)
    assert digests(tmp_path / 'two') == whole


def test_the_callers_infos_stay_as_they_are(synthetic_root, infos, whole):
    assert infos == read_infos(synthetic_root / 'nuscenes_infos_train.pkl')


@pytest.fixture
def progress_lines(monkeypatch, capsys):
    """Lines of progress so far, of which none is left out for coming soon after another."""
    monkeypatch.setattr('projects.cmt_aqr.progress._PAUSE', 0)
    return lambda: capsys.readouterr().err.splitlines()


def test_progress_shows_the_time_left(synthetic_root, infos, tmp_path, progress_lines):
    collect_objects(synthetic_root, tmp_path / 'objects', infos)
    lines = progress_lines()
    starts = [f'objects of samples: {done} of 6, 0:00:' for done in range(1, 7)]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts
    assert lines[-1].endswith(' 0:00:00 left')


@pytest.mark.parametrize('shards', [1, 2])
@pytest.mark.parametrize('workers', [1, 2])
def test_killed_and_called_again(
    synthetic_root, infos, tmp_path, progress_lines, whole, workers, shards
):
    folder = tmp_path / 'objects'
    unfinished = tmp_path / 'objects.unfinished'
    job = multiprocessing.get_context('fork').Process(
        target=_collect_in_a_group, args=(synthetic_root, folder, infos, workers)
    )
    job.start()
    deadline = time.monotonic() + 60
    while (done := len(list(unfinished.glob('rows/*.npy')))) < shards:
        assert job.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(job.pid, signal.SIGKILL)
    job.join()
    _wait_for_the_end_of_group(job.pid)
    done = len(list(unfinished.glob('rows/*.npy')))
    assert shards <= done < 6
    assert not folder.exists()

    progress_lines()
    assert collect_objects(synthetic_root, folder, infos, workers=workers)
    assert f': {6 - done} of {6 - done}, ' in progress_lines()[-1]
    assert digests(folder) == whole
    assert not unfinished.exists()


def _collect_in_a_group(*args) -> None:
    os.setsid()
    torch.set_num_threads(1)  # OpenMP hangs in a fork of a process that has used more
    root, folder, infos, workers = args
    slow = object_database._cut_patches

    def cut_slowly(*args):
        time.sleep(0.1)  # so that the kill comes between two shards
        return slow(*args)

    object_database._cut_patches = cut_slowly
    collect_objects(root, folder, infos, workers=workers)


def _wait_for_the_end_of_group(group: int) -> None:
    """Workers do not outlive a parent that could not end them."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    pytest.fail('workers are left')


@pytest.mark.parametrize('function', ['_save', '_publish'])
def test_failed_at_the_end_and_called_again(
    synthetic_root, infos, tmp_path, monkeypatch, whole, function
):
    """When the index is written, or everything is and only the name is missing."""
    original = getattr(object_database, function)

    def fail(path, *args):
        if path.name in ('index.npy', 'objects.unfinished'):
            raise OSError(28, 'No space left on device')
        return original(path, *args)

    monkeypatch.setattr(object_database, function, fail)
    with pytest.raises(OSError, match='No space'):
        collect_objects(synthetic_root, tmp_path / 'objects', infos)
    monkeypatch.undo()
    monkeypatch.setattr(object_database, '_make_shard', None)  # nothing is made again
    monkeypatch.setattr(object_database, 'SAMPLES_PER_SHARD', 1)
    assert collect_objects(synthetic_root, tmp_path / 'objects', infos)
    assert digests(tmp_path / 'objects') == whole


@pytest.mark.parametrize('workers', [1, 2])
def test_a_missing_file_is_named_and_what_was_made_is_kept(
    synthetic_root, infos, tmp_path, workers
):
    root = tmp_path / 'root'
    (root / 'samples').mkdir(parents=True)
    (root / 'sweeps').symlink_to(synthetic_root / 'sweeps')
    for channel in (synthetic_root / 'samples').iterdir():
        if channel.name != 'CAM_BACK':
            (root / 'samples' / channel.name).symlink_to(channel)
    (root / 'samples' / 'CAM_BACK').mkdir()
    names = [info['images']['CAM_BACK']['img_path'] for info in infos.entries]
    for name in names[:4]:
        (root / 'samples/CAM_BACK' / name).symlink_to(synthetic_root / 'samples/CAM_BACK' / name)
    with pytest.raises(
        MissingFileError, match=rf'sample {infos.entries[4]["token"]}: .*{names[4]}'
    ):
        collect_objects(root, tmp_path / 'objects', infos, workers=workers)
    assert len(list((tmp_path / 'objects.unfinished/rows').iterdir())) == 4


def test_a_finished_database_stays(synthetic_root, infos, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(object_database, '_make_shard', None)
    assert not collect_objects(synthetic_root, tmp_path / 'whole', infos)
    assert digests(tmp_path / 'whole') == whole


def test_overwriting_a_finished_database(synthetic_root, infos, tmp_path, whole):
    (tmp_path / 'whole' / 'shard_00000.bin').write_bytes(b'')
    assert collect_objects(synthetic_root, tmp_path / 'whole', infos, overwrite=True)
    assert digests(tmp_path / 'whole') == whole


@pytest.mark.parametrize('name', ['whole', 'whole.unfinished'])
def test_a_database_of_other_samples_is_not_mixed(synthetic_root, infos, tmp_path, whole, name):
    folder, few = tmp_path / 'whole', infos._replace(entries=infos.entries[:4])
    folder.rename(tmp_path / name)
    with pytest.raises(
        FileExistsError, match=rf'{name} is not the database of these samples.*--ov'
    ):
        collect_objects(synthetic_root, folder, few)
    assert collect_objects(synthetic_root, folder, few, overwrite=True)
    assert np.unique(ObjectDatabase(folder).index['sample']).tolist() == [0, 1, 2, 3]


def test_a_foreign_folder_is_not_touched(synthetic_root, infos, tmp_path):
    (tmp_path / 'objects').mkdir()
    (tmp_path / 'objects' / 'precious').touch()
    with pytest.raises(FileExistsError, match='move it elsewhere'):
        collect_objects(synthetic_root, tmp_path / 'objects', infos)
    assert (tmp_path / 'objects' / 'precious').exists()


def test_a_sample_without_objects(synthetic_root, infos, tmp_path):
    empty = infos._replace(entries=[infos.entries[0] | dict(instances=[]), infos.entries[1]])
    collect_objects(synthetic_root, tmp_path / 'objects', empty)
    assert set(ObjectDatabase(tmp_path / 'objects').index['sample']) == {1}
    none = empty._replace(entries=empty.entries[:1])
    collect_objects(synthetic_root, tmp_path / 'none', none)
    assert len(ObjectDatabase(tmp_path / 'none').index) == 0


def test_a_keyframe_without_sweeps_is_padded_wherever_it_stands(
    synthetic_root, infos, tmp_path, monkeypatch
):
    first, second = (dict(entry) for entry in infos.entries[:2])
    del first['lidar_sweeps']
    counts = {}
    for place, entries in dict(first=[first, second], second=[second, first]).items():
        monkeypatch.setattr(object_database, 'SAMPLES_PER_SHARD', 2)
        collect_objects(synthetic_root, tmp_path / place, infos._replace(entries=entries))
        index = ObjectDatabase(tmp_path / place).index
        counts[place] = index['num_points'][index['sample'] == entries.index(first)].tolist()
    assert counts['first'] == counts['second']
    assert max(counts['first']) > 0


def test_what_only_some_samples_have(synthetic_root, infos, tmp_path):
    """A camera that the first sample lacks is stored, and objects without points are not."""
    first, second = (copy.deepcopy(entry) for entry in infos.entries[:2])
    del first['images']['CAM_BACK']
    for instance in (*first['instances'], *second['instances']):
        del instance['bbox_3d_isvalid']
    second['instances'][0]['num_lidar_pts'] = 0
    some = infos._replace(entries=[first, second])
    prefixes = {camera: f'samples/{camera}' for camera in second['images']}
    prefixes.update(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP')
    collect(synthetic_root, tmp_path / 'some', some, data_prefix=prefixes)
    database = ObjectDatabase(tmp_path / 'some')
    assert 'CAM_BACK' in database.cameras
    used = [i for entry in some.entries for i in entry['instances'] if i['num_lidar_pts'] > 0]
    assert len(database.index) == sum(i['bbox_label_3d'] >= 0 for i in used)
    del first['instances']
    with pytest.raises(ValueError, match=f'sample {first["token"]} has no instances'):
        collect(synthetic_root, tmp_path / 'none', some, data_prefix=prefixes)


def test_a_database_of_points_alone_reads_no_images(synthetic_root, infos, tmp_path, whole):
    root = tmp_path / 'root'
    (root / 'samples').mkdir(parents=True)
    (root / 'sweeps').symlink_to(synthetic_root / 'sweeps')
    (root / 'samples/LIDAR_TOP').symlink_to(synthetic_root / 'samples/LIDAR_TOP')
    collect_objects(root, tmp_path / 'points', infos, cameras=False)
    points, both = ObjectDatabase(tmp_path / 'points'), ObjectDatabase(tmp_path / 'whole')
    assert points.cameras == ()
    assert len(points.index) == len(both.index) > 10
    for one, other in zip(points.index, both.index, strict=True):
        found = points.read(one, cameras=['CAM_FRONT'])
        np.testing.assert_array_equal(found.points, both.read(other).points)
        assert found.patches == {}


def test_the_objects_are_those_of_mmdet3d_but_for_ignored_ones(synthetic_root, infos, tmp_path):
    """mmdet3d names objects of ignored classes `barrier`, the last of its classes."""
    for entry in synthetic_root.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    with info_files._quiet('mmdet3d'):
        info_files._load_script('create_gt_database').create_groundtruth_database(
            'NuScenesDataset', str(tmp_path), 'nuscenes', 'nuscenes_infos_train.pkl'
        )
    theirs = load(tmp_path / 'nuscenes_dbinfos_train.pkl')
    valid = [[i for i in info['instances'] if i['bbox_3d_isvalid']] for info in infos.entries]
    ignored = sum(i['bbox_label_3d'] < 0 for instances in valid for i in instances)
    barriers = sum(i['bbox_label_3d'] == 9 for instances in valid for i in instances)
    assert ignored > 5
    assert len(theirs['barrier']) == barriers + ignored

    collect_objects(synthetic_root, tmp_path / 'objects', infos)
    ours = ObjectDatabase(tmp_path / 'objects')
    assert ours.classes == NuScenesDataset.METAINFO['classes']
    assert len(ours.index) == sum(map(len, theirs.values())) - ignored
    for label, name in enumerate(ours.classes):
        rows = ours.index[ours.index['label'] == label]
        same = [e for e in theirs[name] if valid[e['image_idx']][e['gt_idx']]['bbox_label_3d'] >= 0]
        assert len(rows) == len(same) > 0
        for row, entry in zip(rows, same, strict=True):
            assert row['sample'] == entry['image_idx']
            np.testing.assert_array_equal(row['box'], entry['box3d_lidar'])
            points = np.fromfile(tmp_path / entry['path'], np.float32).reshape(-1, 5)
            points[:, :3] += row['box'][:3]
            np.testing.assert_allclose(ours.read(row).points, points, atol=1e-5)
