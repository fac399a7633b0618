"""The database appears whole or not at all, and the same seed makes the same bytes."""

import hashlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from nuscenes import NuScenes
from nuscenes.utils import splits

from projects.cmt_aqr.data_preparation.synthetic import (
    CLASSES,
    DatabaseSettings,
    make_database,
    maker,
)

SMALL = DatabaseSettings(train_scenes=1, val_scenes=1, keyframes=2, sweeps=1, image_size=(64, 36))


def digest(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob('*'))
        if file.is_file()
    }


@pytest.mark.parametrize('world', ['plain', 'streets'])
def test_same_seed_same_bytes_whatever_the_workers(tmp_path, world):
    settings = replace(SMALL, world=world)
    one = digest(make_database(tmp_path / 'one', settings))
    two = digest(make_database(tmp_path / 'two', settings, workers=2))
    assert one == two
    # 13 tables, map, settings; 2 scenes of 2 keyframes of 7 sensors and one sweep.
    assert len(one) == 13 + 2 + 2 * 2 * (7 + 1)


def test_without_ignored_objects_their_classes_are_not_mentioned(tmp_path):
    root = make_database(tmp_path / 'data', SMALL)
    categories = json.loads((root / 'v1.0-mini/category.json').read_text())
    assert [category['description'] for category in categories] == [c.name for c in CLASSES]


def test_other_seed_other_bytes(tmp_path):
    other = DatabaseSettings(**(vars(SMALL) | dict(seed=1)))
    one, two = (
        digest(make_database(tmp_path / 'one', SMALL)),
        digest(make_database(tmp_path / 'two', other)),
    )
    data = [name for name in one if name.startswith(('samples', 'sweeps'))]
    assert data
    assert set(one) == set(two)
    assert all(one[name] != two[name] for name in data)


def test_no_two_scenes_share_a_layout():
    settings = DatabaseSettings(version='v1.0-trainval', keyframes=2)
    tasks = settings.tasks(Path('unused'))
    assert len({task.entropy for task in tasks}) == len(tasks) == 850
    places = {tuple(task.make_scene().actors[0].start) for task in tasks[::50]}
    assert len(places) == len(tasks[::50])


def test_scene_names_are_official():
    names = DatabaseSettings().scene_names()
    assert names == dict(train=splits.mini_train, val=['scene-0103', 'scene-0916'])
    some = DatabaseSettings(version='v1.0-trainval', train_scenes=3, val_scenes=2).scene_names()
    assert some == dict(train=splits.train[:3], val=splits.val[:2])


def test_tables_are_complete_and_chained(synthetic_root, synthetic_settings):
    nusc = NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)
    assert len(nusc.scene) == 4
    assert len(nusc.sample) == 12
    assert len(nusc.sample_data) == 12 * 8 == len(nusc.ego_pose)
    assert [len(t) for t in (nusc.attribute, nusc.category, nusc.visibility)] == [8, 13, 4]
    for scene in nusc.scene:
        sample, times = nusc.get('sample', scene['first_sample_token']), []
        while True:
            times.append(sample['timestamp'])
            if not sample['next']:
                break
            sample = nusc.get('sample', sample['next'])
        assert sample['token'] == scene['last_sample_token']
        assert len(times) == synthetic_settings.keyframes == scene['nbr_samples']
        assert [b - a for a, b in pairwise(times)] == [500_000] * 2
        lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
        assert not nusc.get('sample_data', lidar['prev'])['is_key_frame']
    for instance in nusc.instance:
        first = nusc.get('sample_annotation', instance['first_annotation_token'])
        assert first['prev'] == ''
        assert instance['nbr_annotations'] >= 2
    for record in nusc.sample_data:
        assert (synthetic_root / record['filename']).is_file()


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
@pytest.mark.parametrize('stage', ['record_scene', '_write_map', 'dump_json'])
def test_failure_leaves_nothing(tmp_path, monkeypatch, stage, error):
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(maker, stage, fail)
    with pytest.raises(type(error)):
        make_database(tmp_path / 'data', SMALL)
    assert list(tmp_path.iterdir()) == []


def test_failed_overwrite_keeps_the_old_one(tmp_path, monkeypatch):
    root = make_database(tmp_path / 'data', SMALL)
    before = digest(root)
    monkeypatch.setattr(maker, '_write_map', lambda path: path.open('x').read())
    with pytest.raises(OSError, match='maps'):
        make_database(root, SMALL, overwrite=True)
    assert digest(root) == before
    assert list(tmp_path.iterdir()) == [root]


def test_overwrite(tmp_path):
    root = make_database(tmp_path / 'data', SMALL)
    with pytest.raises(FileExistsError, match='not empty'):
        make_database(root, SMALL)
    other = DatabaseSettings(**(vars(SMALL) | dict(seed=5)))
    make_database(root, other, overwrite=True)
    assert json.loads((root / 'synthetic.json').read_text())['seed'] == 5
    assert list(tmp_path.iterdir()) == [root]


def test_foreign_folder_is_never_overwritten(tmp_path):
    (tmp_path / 'precious').write_text('x')
    with pytest.raises(FileExistsError, match='not made by this tool'):
        make_database(tmp_path, SMALL, overwrite=True)
    assert (tmp_path / 'precious').read_text() == 'x'


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        (dict(version='v1.0-test'), "version must be one of .* got 'v1.0-test'"),
        (dict(train_scenes=9), 'train_scenes must be 1 to 8 in v1.0-mini, got 9'),
        (dict(val_scenes=0), 'val_scenes must be 1 to 2'),
        (dict(keyframes=1), 'keyframes must be 2 to 100, got 1'),
        (dict(sweeps=-1), 'sweeps must be 0 to 10, got -1'),
        (dict(seed=-1), 'seed must be'),
        (dict(image_size=(0, 100)), 'image_size must be'),
        (dict(draw_distance=float('nan')), 'draw_distance must be'),
        (dict(ignored_objects=21), 'ignored_objects must be 0 to 20, got 21'),
        (dict(world='mars'), "world must be one of plain, streets, got 'mars'"),
    ],
)
def test_wrong_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        DatabaseSettings(**setting)


def start_tool(repo_root: Path, out: Path) -> subprocess.Popen:
    """The tool in a process group of its own, once both workers are at it."""
    script = repo_root / 'tools' / 'make_synthetic_nuscenes.py'
    command = [sys.executable, str(script), '--out', str(out), '--workers', '2']
    # Tests that a shell runs in the background ignore Ctrl-C, and what they start inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [*command, '--keyframes', '100'],
            start_new_session=True,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    deadline = time.monotonic() + 120
    while len({p.name.split('__')[0] for p in out.parent.glob('.*/*/samples/*/*.jpg')}) < 2:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ('send', 'number', 'status', 'message'),
    [
        (
            os.killpg,
            signal.SIGINT,
            130,
            'make_synthetic_nuscenes.py: interrupted; nothing was left behind',
        ),
        (os.kill, signal.SIGTERM, 143, ''),
    ],
    ids=['Ctrl-C', 'kill'],
)
def test_interrupted_process_leaves_nothing(tmp_path, repo_root, send, number, status, message):
    with start_tool(repo_root, tmp_path / 'data') as process:
        send(process.pid, number)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == status
    assert errors.strip() == message
    assert list(tmp_path.iterdir()) == []
    assert group_is_empty(process.pid)


@pytest.mark.slow
def test_killed_worker_is_an_error(tmp_path, repo_root):
    with start_tool(repo_root, tmp_path / 'data') as process:
        workers = Path(f'/proc/{process.pid}/task/{process.pid}/children').read_text().split()
        os.kill(int(workers[0]), signal.SIGKILL)
        errors = process.communicate(timeout=60)[1]
    assert process.returncode == 2
    assert errors.startswith('make_synthetic_nuscenes.py: a worker process was killed')
    assert list(tmp_path.iterdir()) == []
    assert group_is_empty(process.pid)


def run_tool(repo_root: Path, *arguments: str) -> None:
    """Run the tool in this process, under a command line."""
    script = str(repo_root / 'tools' / 'make_synthetic_nuscenes.py')
    with mock.patch.object(sys, 'argv', ['make_synthetic_nuscenes.py', *arguments]):
        runpy.run_path(script, run_name='__main__')


def test_command_line_error_is_one_sentence(tmp_path, repo_root, capsys):
    with pytest.raises(SystemExit) as end:
        run_tool(repo_root, '--keyframes', '1', '--out', str(tmp_path / 'data'))
    assert end.value.code == 2
    message = 'make_synthetic_nuscenes.py: keyframes must be 2 to 100, got 1\n'
    assert capsys.readouterr().err == message
    assert list(tmp_path.iterdir()) == []


def test_command_line(tmp_path, repo_root):
    scenes = ['--train-scenes', '1', '--val-scenes', '1', '--keyframes', '2', '--sweeps', '0']
    out = tmp_path / 'data'
    size = ['--image-size', '64', '36']
    run_tool(repo_root, '--out', str(out), *scenes, *size, '--workers', '1')
    assert json.loads((out / 'synthetic.json').read_text())['image_size'] == [64, 36]
