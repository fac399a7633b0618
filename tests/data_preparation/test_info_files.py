"""mmdet3d's converter and dataset class read the database."""

import json
import runpy
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mmdet3d.datasets import NuScenesDataset
from mmengine.fileio import dump, load
from nuscenes import NuScenes

from projects.cmt_aqr.data_preparation import info_files
from projects.cmt_aqr.data_preparation.info_files import (
    create_info_files,
    create_object_database,
    update_info_file,
)
from projects.cmt_aqr.data_preparation.old_infos import is_old
from projects.cmt_aqr.datasets.object_sampling import ObjectDatabase
from projects.cmt_aqr.datasets.transforms import LoadPointsOfKeyframe

CMT_CLASSES = [
    'car',
    'truck',
    'construction_vehicle',
    'bus',
    'trailer',
    'barrier',
    'motorcycle',
    'bicycle',
    'pedestrian',
    'traffic_cone',
]


def dataset(root, split: str, **options) -> NuScenesDataset:
    return NuScenesDataset(
        data_root=str(root),
        ann_file=f'nuscenes_infos_{split}.pkl',
        data_prefix=dict(pts='samples/LIDAR_TOP', sweeps='sweeps/LIDAR_TOP'),
        metainfo=dict(classes=CMT_CLASSES, version='v1.0-mini'),
        modality=dict(use_lidar=True, use_camera=True),
        **options,
    )


def test_dataset_has_the_annotations_of_the_tables(synthetic_root):
    nusc = NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)
    for split in ('train', 'val'):
        data = dataset(synthetic_root, split)
        assert len(data) == 2 * 3
        for i in range(len(data)):
            info = data.get_data_info(i)
            sample = nusc.get('sample', info['token'])
            kept = [nusc.get('sample_annotation', t) for t in sample['anns']]
            kept = [a for a in kept if a['num_lidar_pts'] > 0]
            names = [a['category_name'] for a in kept]
            labels = info['ann_info']['gt_labels_3d']
            assert len(labels) == len(kept) > 0
            for name in ('car', 'pedestrian.adult', 'trafficcone'):
                cmt = dict(trafficcone='traffic_cone').get(name, name.split('.')[0])
                count = sum(n.endswith(f'.{name}') for n in names)
                assert (labels == CMT_CLASSES.index(cmt)).sum() == count


def test_boxes_are_in_the_lidar_frame(synthetic_root):
    nusc = NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)
    info = dataset(synthetic_root, 'val').get_data_info(1)
    sample = nusc.get('sample', info['token'])
    _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    annotations = [nusc.get('sample_annotation', token) for token in sample['anns']]
    boxes = [b for b, a in zip(boxes, annotations, strict=True) if a['num_lidar_pts'] > 0]
    expected = np.array([b.center for b in boxes])
    got = info['ann_info']['gt_bboxes_3d'].gravity_center.numpy()
    assert got == pytest.approx(expected, abs=1e-4)
    assert np.hypot(*got[:, :2].T).max() < 25.6


def test_sweeps_are_listed(synthetic_root):
    data = dataset(synthetic_root, 'train')
    # Before each keyframe: its sweep, and all the readings of the scene before that.
    assert [len(data.get_data_info(i)['lidar_sweeps']) for i in range(3)] == [1, 3, 5]


def test_boxes_in_images_can_be_left_out(synthetic_root, root_copy, repo_root, monkeypatch):
    command = ['create_data.py', str(root_copy), '--no-camera-boxes']
    monkeypatch.setattr(sys, 'argv', command)
    runpy.run_path(str(repo_root / 'tools/create_data.py'), run_name='__main__')
    name = 'nuscenes_infos_train.pkl'
    whole, short = (load(root / name)['data_list'] for root in (synthetic_root, root_copy))
    assert [entry['cam_instances'] for entry in short] == [{}] * len(whole)
    assert all(any(entry['cam_instances'].values()) for entry in whole)
    for entry in [*whole, *short]:
        del entry['cam_instances']
    assert str(short) == str(whole)


def test_no_temporary_folder_stays(synthetic_root):
    assert not [p for p in synthetic_root.iterdir() if p.name.startswith('.')]


@pytest.fixture
def root_copy(synthetic_root, tmp_path) -> Path:
    """A data root of links, to be written into."""
    for entry in synthetic_root.iterdir():
        if entry.suffix != '.pkl':
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def test_database_of_objects(root_copy):
    made = create_object_database(root_copy, version='v1.0-mini')
    assert [path.name for path in made] == [
        'nuscenes_infos_train.pkl',
        'nuscenes_infos_val.pkl',
        'nuscenes_objects',
    ]
    objects = ObjectDatabase(made[-1])
    train = dataset(root_copy, 'train')
    labels = np.concatenate([train.get_ann_info(i)['gt_labels_3d'] for i in range(len(train))])
    names = [objects.classes[label] for label in objects.index['label']]
    assert Counter(names) == {name: (labels == i).sum() for i, name in enumerate(CMT_CLASSES)}
    assert (labels == -1).sum() > 5
    assert not [p for p in root_copy.iterdir() if p.name.startswith('.')]


def test_info_files_are_kept_for_the_database(root_copy):
    files = create_info_files(root_copy, version='v1.0-mini')
    before = [file.stat().st_mtime_ns for file in files]
    (made,) = create_object_database(root_copy, version='v1.0-mini')
    assert made == root_copy / 'nuscenes_objects'
    assert create_object_database(root_copy, version='v1.0-mini') == []
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.parametrize('why', ['one is missing', 'of another version', 'of an old format'])
def test_info_files_that_do_not_fit_are_made_anew(root_copy, old_file, why):
    train, val = create_info_files(root_copy, version='v1.0-mini')
    if why == 'one is missing':
        val.unlink()
    elif why == 'of another version':
        dump(dict(metainfo=dict(version='v1.0-trainval'), data_list=[]), train)
    else:
        shutil.copy(old_file, train)
    made = create_object_database(root_copy, version='v1.0-mini')
    assert made == [train, val, root_copy / 'nuscenes_objects']
    assert load(train)['metainfo']['version'] == 'v1.0-mini'


def snapshot(root: Path) -> dict[Path, int]:
    """Everything in a folder with the time of its last change, itself included."""
    return {path: path.lstat().st_mtime_ns for path in (root, *root.rglob('*'))}


def test_a_data_root_is_not_touched(synthetic_root, old_file, tmp_path, monkeypatch):
    """Where the root is read-only, `out` takes all that is made and is a data root itself."""
    before = snapshot(synthetic_root)
    out = tmp_path / 'new' / 'out'
    for _ in range(2):  # Again: the links are there.
        create_info_files(synthetic_root, version='v1.0-mini', out=out)
    made = create_object_database(synthetic_root, version='v1.0-mini', out=out)
    assert made == [out / 'nuscenes_objects']
    (out / 'nuscenes_infos_train.pkl').unlink()
    assert update_info_file(synthetic_root, old_file, out=out).parent == out
    assert snapshot(synthetic_root) == before

    entries = {entry.name: entry.is_symlink() for entry in out.iterdir()}
    linked = ['maps', 'samples', 'sweeps', 'synthetic.json', 'v1.0-mini']
    files = ['nuscenes_infos_train.pkl', 'nuscenes_infos_val.pkl', 'nuscenes_objects']
    assert entries == dict.fromkeys(linked, True) | dict.fromkeys(files, False)
    monkeypatch.chdir(tmp_path)
    data = dataset('new/out', 'train', pipeline=[LoadPointsOfKeyframe(coord_type='LIDAR')])
    assert len(data.pipeline(data.get_data_info(0))['points']) > 1000


def test_something_in_the_place_of_a_link(synthetic_root, tmp_path):
    (tmp_path / 'samples').mkdir()
    with pytest.raises(FileExistsError, match=r'samples exists and is not a link to .*samples'):
        create_info_files(synthetic_root, version='v1.0-mini', out=tmp_path)


def test_command_line_makes_a_database(synthetic_root, tmp_path, repo_root, monkeypatch, capsys):
    command = str(repo_root / 'tools/create_data.py')
    options = ['--with-database', '--workers', '2', '--out', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', [command, str(synthetic_root), *options])
    runpy.run_path(command, run_name='__main__')
    out = capsys.readouterr().out
    assert out.endswith(f'made {tmp_path}/nuscenes_objects\n')


def test_converter_chatter_stays_off_the_terminal(root_copy, capfd):
    create_info_files(root_copy, version='v1.0-mini')
    printed = ''.join(capfd.readouterr())
    assert 'Loading NuScenes tables' not in printed
    assert 'will be modified' not in printed


def test_failed_conversion_changes_nothing(root_copy, monkeypatch):
    def fail(*args):
        raise OSError(28, 'No space left on device')

    before, folder = sorted(root_copy.iterdir()), Path.cwd()
    monkeypatch.setattr(info_files, '_convert', fail)
    with pytest.raises(OSError, match='No space'):
        create_info_files(root_copy, version='v1.0-mini')
    assert sorted(root_copy.iterdir()) == before
    assert Path.cwd() == folder


def test_missing_root_names_the_command(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r'does not exist.*make_synthetic_nuscenes\.py --out'
    ):
        create_info_files(tmp_path / 'nowhere', version='v1.0-mini')


def test_root_without_tables(tmp_path):
    with pytest.raises(FileNotFoundError, match='has no nuScenes tables'):
        create_info_files(tmp_path, version='v1.0-mini')


def test_versions_present_are_listed(synthetic_root):
    with pytest.raises(FileNotFoundError, match=r'no v2 tables; its versions are: v1\.0-mini'):
        create_info_files(synthetic_root, version='v2')


def test_version_unknown_to_the_converter(tmp_path):
    (tmp_path / 'v2').mkdir()
    (tmp_path / 'v2' / 'sample.json').write_text('[]')
    with pytest.raises(ValueError, match="got 'v2'"):
        create_info_files(tmp_path, version='v2')


def test_no_objects_without_annotations(tmp_path):
    (tmp_path / 'v1.0-test').mkdir()
    (tmp_path / 'v1.0-test' / 'sample.json').write_text('[]')
    with pytest.raises(ValueError, match='has no annotations'):
        create_object_database(tmp_path, version='v1.0-test')


@pytest.fixture(scope='module')
def old_file(synthetic_root, tmp_path_factory) -> Path:
    """Training infos as MMDetection3D 1.0 wrote them: the first half of today's converter."""
    folder = tmp_path_factory.mktemp('old')
    for entry in synthetic_root.iterdir():
        if entry.suffix != '.pkl':
            (folder / entry.name).symlink_to(entry)
    with info_files._quiet('old'):
        info_files._load_script('nuscenes_converter').create_nuscenes_infos(
            str(folder), 'nuscenes', version='v1.0-mini', max_sweeps=10
        )
    return folder / 'nuscenes_infos_train.pkl'


def test_an_old_info_file_becomes_the_new_one(synthetic_root, root_copy, old_file):
    made = update_info_file(root_copy, old_file)
    assert made == root_copy / 'nuscenes_infos_train.pkl'
    new, expected = load(made), load(synthetic_root / 'nuscenes_infos_train.pkl')
    assert new['metainfo'] == expected['metainfo']
    assert len(new['data_list']) == len(expected['data_list']) == 6
    for info, other in zip(new['data_list'], expected['data_list'], strict=True):
        assert info['token'] == other['token']
        assert info['instances'] == other['instances']
        assert info['images'] == other['images']
    assert len(dataset(root_copy, 'train')) == 6
    assert load(old_file).keys() == {'infos', 'metadata'}


def test_an_old_info_file_in_the_data_root_stays_beside(root_copy, old_file):
    file = root_copy / 'nuscenes_infos_train.pkl'
    shutil.copy(old_file, file)
    assert is_old(file)
    update_info_file(root_copy, file)
    assert not is_old(file)
    kept = root_copy / 'nuscenes_infos_train.pkl.old'
    assert kept.read_bytes() == old_file.read_bytes()
    with pytest.raises(
        ValueError, match=r"does not have MMDetection3D's format before 1\.1: nothing"
    ):
        update_info_file(root_copy, file)
    shutil.copy(old_file, file)
    with pytest.raises(FileExistsError, match=r'train\.pkl\.old exists already'):
        update_info_file(root_copy, file)


def test_no_file_is_written_over(root_copy, old_file):
    (root_copy / 'nuscenes_infos_train.pkl').write_text('mine')
    with pytest.raises(FileExistsError, match=r'infos_train\.pkl exists already'):
        update_info_file(root_copy, old_file)


def test_an_old_info_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'info file .*none\.pkl does not exist'):
        update_info_file(tmp_path, tmp_path / 'none.pkl')


def test_command_line_updates_infos(root_copy, old_file, repo_root, monkeypatch, capsys):
    command = str(repo_root / 'tools/create_data.py')
    monkeypatch.setattr(sys, 'argv', [command, str(root_copy), '--update-infos', str(old_file)])
    runpy.run_path(command, run_name='__main__')
    assert capsys.readouterr().out.endswith(f'made {root_copy}/nuscenes_infos_train.pkl\n')


def rename_scenes(root: Path, *names: str) -> None:
    """Gives the four scenes other names, in a copy of the tables."""
    tables = (root / 'v1.0-mini').resolve()
    (root / 'v1.0-mini').unlink()
    shutil.copytree(tables, root / 'v1.0-mini')
    file = root / 'v1.0-mini' / 'scene.json'
    scenes = [dict(row, name=name) for row, name in zip(load(file), names, strict=True)]
    dump(scenes, file)


def scenes_in(file: Path) -> Counter:
    return Counter(entry['scene'] for entry in load(file)['data_list'])


def test_entries_have_the_names_of_their_scenes(synthetic_root):
    assert set(scenes_in(synthetic_root / 'nuscenes_infos_val.pkl')) == {'scene-0103', 'scene-0916'}


@pytest.mark.parametrize('place', ['beside the tables', 'named'])
def test_splits_are_by_the_names_of_scenes(root_copy, tmp_path_factory, place):
    rename_scenes(root_copy, 'a', 'b', 'c', 'd')
    file = root_copy / 'v1.0-mini' / 'splits.json'
    if place == 'named':
        file = tmp_path_factory.mktemp('splits') / 'mine.json'
    dump(dict(train=['d', 'a'], val=['c'], later=['b']), file)
    options = dict(splits=file) if place == 'named' else {}
    train, val = create_info_files(root_copy, version='v1.0-mini', **options)
    assert (scenes_in(train), scenes_in(val)) == (dict(a=3, d=3), dict(c=3))


@pytest.mark.parametrize(
    ('splits', 'line'),
    [
        (None, r'4 scenes of .*v1.0-mini are in none of the official splits: a, b, c, d; name'),
        (dict(train=['a'], val=['b']), r'2 scenes of .* are in none of splits file .*: c, d'),
        (dict(train=['a'], val=['B']), r"scene.json, .* splits file .* names, has no 'B'.*a, b"),
        (dict(train=['a'], test=['b']), r"splits file .*splits.json has no 'val'"),
    ],
)
def test_scenes_and_splits_that_do_not_agree_are_refused(root_copy, splits, line):
    rename_scenes(root_copy, 'a', 'b', 'c', 'd')
    if splits is not None:
        dump(splits, root_copy / 'v1.0-mini' / 'splits.json')
    with pytest.raises(ValueError, match=line):
        create_info_files(root_copy, version='v1.0-mini')
    assert not [path for path in root_copy.iterdir() if path.suffix == '.pkl']


def test_a_file_that_was_not_downloaded_is_named_as_the_user_knows_it(root_copy, synthetic_root):
    clouds = sorted((synthetic_root / 'samples/LIDAR_TOP').iterdir())
    (root_copy / 'samples').unlink()
    for channel in (synthetic_root / 'samples').iterdir():
        (root_copy / 'samples' / channel.name).mkdir(parents=True)
        for file in channel.iterdir():
            if file != clouds[1]:  # the second of the first scene
                (root_copy / 'samples' / channel.name / file.name).symlink_to(file)
    missing = root_copy / 'samples/LIDAR_TOP' / clouds[1].name
    with pytest.raises(FileNotFoundError, match='download is not complete') as error:
        create_info_files(root_copy, version='v1.0-mini')
    assert f'"{missing}"' in str(error.value)
    assert '.infos-' not in str(error.value)


def test_a_read_only_data_root_needs_another_folder(synthetic_root, monkeypatch):
    monkeypatch.setattr(info_files.os, 'access', lambda path, mode: False)
    with pytest.raises(PermissionError, match='is read-only; to write elsewhere: --out FOLDER'):
        create_info_files(synthetic_root, version='v1.0-mini')


def test_a_database_without_images_is_asked_for_before_anything_slow(root_copy, synthetic_root):
    (root_copy / 'samples').unlink()
    (root_copy / 'samples').mkdir()
    (root_copy / 'samples/LIDAR_TOP').symlink_to(synthetic_root / 'samples/LIDAR_TOP')
    with pytest.raises(FileNotFoundError, match=r'no images in samples; .*: --lidar-only'):
        create_object_database(root_copy, version='v1.0-mini')
    made = create_object_database(root_copy, version='v1.0-mini', lidar_only=True)
    assert ObjectDatabase(made[-1]).cameras == ()


@pytest.mark.parametrize(
    ('channel', 'names'),
    [('CAM_REAR', 'CAM_FRONT_RIGHT, CAM_REAR'), (None, 'CAM_FRONT_RIGHT, but the')],
)
def test_another_rig_is_refused(root_copy, channel, names):
    """Of which the converter would lose a camera, or end in a traceback."""
    tables = root_copy / 'v1.0-mini'
    copied = shutil.copytree(tables.resolve(), root_copy.parent / 'tables')
    tables.unlink()
    file = copied.rename(tables) / 'sensor.json'
    sensors = [row for row in json.loads(file.read_text()) if row['channel'] != 'CAM_BACK']
    if channel is not None:
        sensors.append(dict(token='x', channel=channel, modality='camera'))
    file.write_text(json.dumps(sensors))
    with pytest.raises(ValueError, match=f'{names}.* write an info file, see docs/own_data.md'):
        create_info_files(root_copy, version='v1.0-mini')
