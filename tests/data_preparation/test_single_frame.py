"""Tables from the info file of one keyframe: a real one, and one whose own tables are known."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from mmengine.fileio import dump, load
from nuscenes import NuScenes
from nuscenes.eval.detection.utils import category_to_detection_name

from projects.cmt_aqr.data_preparation.single_frame import (
    ATTRIBUTES,
    INFO_FILES,
    SCENE,
    VERSION,
    frame_tables,
    make_frame_root,
)
from projects.cmt_aqr.visualization import render_frame

CAMERAS = 6


class Made(NamedTuple):
    """A data root made from an info file."""

    root: Path
    nusc: NuScenes
    frame: dict
    """The entry of the info file."""

    @property
    def known(self) -> list[dict]:
        """Instances of a detection class."""
        return [i for i in self.frame['instances'] if i['bbox_label_3d'] >= 0]

    def annotation(self, index: int) -> dict:
        """The annotation of the known instance ``index``."""
        return self.nusc.get('sample_annotation', self.nusc.sample[0]['anns'][index])


@pytest.fixture(scope='module')
def synthetic_frame(synthetic_root, tmp_path_factory) -> Path:
    """The last synthetic sample in a folder by itself, as mmdet3d ships its demo data."""
    folder = tmp_path_factory.mktemp('frame')
    info = load(synthetic_root / INFO_FILES[1])
    frame = info['data_list'][-1]
    del frame['lidar_sweeps']
    for channel, image in frame['images'].items():
        shutil.copy(synthetic_root / 'samples' / channel / image['img_path'], folder)
    cloud = frame['lidar_points']['lidar_path']
    shutil.copy(synthetic_root / 'samples' / 'LIDAR_TOP' / cloud, folder)
    dump(info | dict(data_list=[frame]), folder / 'frame.pkl')
    return folder


@pytest.fixture(scope='module', params=['real_frame', 'synthetic_frame'])
def made(request, tmp_path_factory) -> Made:
    folder = request.getfixturevalue(request.param)
    root = make_frame_root(folder, tmp_path_factory.mktemp('made') / 'root')
    nusc = NuScenes(version=VERSION, dataroot=str(root), verbose=False)
    return Made(root, nusc, load(next(folder.glob('*.pkl')))['data_list'][0])


def test_the_devkit_takes_every_box_back_to_the_lidar(made):
    (sample,) = made.nusc.sample
    path, boxes, _ = made.nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    assert Path(path).name == made.frame['lidar_points']['lidar_path']
    assert len(boxes) == len(made.known) > 10
    for box, instance in zip(boxes, made.known, strict=True):
        x, y, z, length, width, height, yaw = instance['bbox_3d']
        np.testing.assert_allclose(box.center, (x, y, z), atol=1e-3)
        np.testing.assert_allclose(box.wlh, (width, length, height), atol=1e-4)
        turn = box.orientation.rotation_matrix
        np.testing.assert_allclose(turn[:, 0], (np.cos(yaw), np.sin(yaw), 0), atol=1e-5)
        np.testing.assert_allclose(turn[:, 2], (0, 0, 1), atol=1e-5)


def test_the_devkit_projects_as_the_info_file_does(made):
    (sample,) = made.nusc.sample
    assert len(made.frame['images']) == CAMERAS
    for name, image in made.frame['images'].items():
        path, boxes, intrinsic = made.nusc.get_sample_data(sample['data'][name])
        assert Path(path).name == image['img_path']
        assert Path(path).is_file()
        np.testing.assert_allclose(intrinsic, image['cam2img'], rtol=1e-6)
        lidar2cam = np.array(image['lidar2cam'])
        by_token = {made.annotation(i)['token']: made.known[i] for i in range(len(made.known))}
        assert boxes  # some are seen by each camera
        for box in boxes:
            expected = lidar2cam @ [*by_token[box.token]['bbox_3d'][:3], 1]
            np.testing.assert_allclose(box.center, expected[:3], atol=1e-3)


def test_what_one_frame_cannot_tell_is_unknown(made):
    for annotation in made.nusc.sample_annotation:
        assert annotation['prev'] == annotation['next'] == annotation['visibility_token'] == ''
        assert np.isnan(made.nusc.box_velocity(annotation['token'])).all()


def test_points_are_counted_as_in_the_info_file(made):
    counts = [made.annotation(i)['num_lidar_pts'] for i in range(len(made.known))]
    assert counts == [instance['num_lidar_pts'] for instance in made.known]
    assert max(counts) > 0


def test_attributes_are_those_of_the_cameras_instances(made):
    """The tallies agree although the two lists have neither order nor names in common."""
    labels = {
        label: {tuple(i['bbox_3d'][3:6]) for c in cameras for i in c if i['attr_label'] == label}
        for cameras in [made.frame['cam_instances'].values()]
        for label in range(len(ATTRIBUTES))
    }
    names = [
        [made.nusc.get('attribute', token)['name'] for token in annotation['attribute_tokens']]
        for annotation in made.nusc.sample_annotation
    ]
    for label, attribute in enumerate(ATTRIBUTES):
        assert names.count([attribute]) == len(labels[label])


def test_one_scene_of_the_validation_split(made):
    assert [scene['name'] for scene in made.nusc.scene] == [SCENE] == ['scene-0103']
    assert made.nusc.scene[0]['nbr_samples'] == 1
    assert [sample['token'] for sample in made.nusc.sample] == [made.frame['token']]


def test_the_real_frame_has_one_object_of_no_class(real_frame, tmp_path):
    root = make_frame_root(real_frame, tmp_path)
    (frame,) = load(root / INFO_FILES[0])['data_list']
    assert [i['bbox_label_3d'] for i in frame['instances']].count(-1) == 1
    assert len(load(root / VERSION / 'sample_annotation.json')) == len(frame['instances']) - 1


def test_tables_agree_with_those_that_the_info_file_came_from(
    synthetic_root, synthetic_frame, tmp_path
):
    root = make_frame_root(synthetic_frame, tmp_path)
    original = NuScenes(version=VERSION, dataroot=str(synthetic_root), verbose=False)
    made = NuScenes(version=VERSION, dataroot=str(root), verbose=False)
    (sample,) = made.sample
    before = original.get('sample', sample['token'])
    # The info file has no names for objects of classes that are not detected.
    categories = {t: original.get('sample_annotation', t)['category_name'] for t in before['anns']}
    kept = [t for t, category in categories.items() if category_to_detection_name(category)]
    assert len(kept) < len(before['anns'])
    for token, token_before in zip(sample['anns'], kept, strict=True):
        now = made.get('sample_annotation', token)
        then = original.get('sample_annotation', token_before)
        np.testing.assert_allclose(now['translation'], then['translation'], atol=1e-4)
        np.testing.assert_allclose(now['size'], then['size'], atol=1e-5)
        same = abs(np.dot(now['rotation'], then['rotation']))  # q and -q are one rotation
        assert same == pytest.approx(1, abs=1e-6)
        assert now['category_name'] == then['category_name']
    for channel, token in sample['data'].items():
        now = made.get('sample_data', token)
        then = original.get('sample_data', before['data'][channel])
        assert {k: now[k] for k in ('timestamp', 'filename', 'height', 'width', 'fileformat')} == {
            k: then[k] for k in ('timestamp', 'filename', 'height', 'width', 'fileformat')
        }
        for table, key in (
            ('ego_pose', 'ego_pose_token'),
            ('calibrated_sensor', 'calibrated_sensor_token'),
        ):
            pose, pose_before = made.get(table, now[key]), original.get(table, then[key])
            np.testing.assert_allclose(pose['translation'], pose_before['translation'], atol=1e-4)


def test_making_it_again_is_fine_but_nothing_else_is_overwritten(synthetic_frame, tmp_path):
    root = make_frame_root(synthetic_frame, tmp_path / 'root')
    assert make_frame_root(synthetic_frame, root) == root
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'precious').write_text('x')
    with pytest.raises(FileExistsError, match='other'):
        make_frame_root(synthetic_frame, other)
    assert [path.name for path in other.iterdir()] == ['precious']


def test_files_are_linked_or_copied(synthetic_frame, tmp_path):
    for copy in (False, True, False):
        root = make_frame_root(synthetic_frame, tmp_path / 'root', copy=copy)
        files = [path for path in (root / 'samples').rglob('*') if not path.is_dir()]
        assert len(files) == CAMERAS + 1
        for path in files:
            assert path.is_symlink() is not copy
            assert path.read_bytes() == (synthetic_frame / path.name).read_bytes()


def test_a_file_system_without_links_gets_copies(synthetic_frame, tmp_path, monkeypatch):
    def refuse(self: Path, target: Path) -> None:
        raise OSError('no links here')

    monkeypatch.setattr(Path, 'symlink_to', refuse)
    root = make_frame_root(synthetic_frame, tmp_path / 'root')
    assert not any(path.is_symlink() for path in root.rglob('*'))


def test_missing_folder_and_missing_file_are_named(synthetic_frame, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent'):
        make_frame_root(tmp_path / 'absent', tmp_path / 'root')
    partial = tmp_path / 'partial'
    partial.mkdir()
    with pytest.raises(FileNotFoundError, match='no info file'):
        make_frame_root(partial, tmp_path / 'root')
    shutil.copy(synthetic_frame / 'frame.pkl', partial)
    with pytest.raises(FileNotFoundError, match=r'\.(jpg|bin) of \w+ is missing'):
        make_frame_root(partial, tmp_path / 'root')
    assert not (tmp_path / 'root').exists()


def test_another_rig_keeps_its_cameras(synthetic_frame):
    info = load(synthetic_frame / 'frame.pkl')
    frame, names = info['data_list'][0], ['LEFT', 'RIGHT']
    frame['images'] = dict(zip(names, frame['images'].values(), strict=False))
    frame.pop('cam_instances', None)
    sizes = dict.fromkeys(names, (9, 16))
    tables = frame_tables(frame, info['metainfo']['categories'], sizes)
    found = {sensor['channel']: sensor['modality'] for sensor in tables['sensor']}
    assert found == dict(LEFT='camera', RIGHT='camera', LIDAR_TOP='lidar')
    used = {calibration['sensor_token'] for calibration in tables['calibrated_sensor']}
    assert used == {sensor['token'] for sensor in tables['sensor']}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda info: dict(infos=info['data_list']), "not of mmdet3d's v1.1 format"),
        (lambda info: info | dict(data_list=info['data_list'] * 2), 'holds 2'),
    ],
    ids=['format', 'frames'],
)
def test_unfit_info_file_is_named(synthetic_frame, tmp_path, change, message):
    dump(change(load(synthetic_frame / 'frame.pkl')), tmp_path / 'unfit.pkl')
    with pytest.raises(ValueError, match=message):
        make_frame_root(tmp_path, tmp_path / 'root')
    dump({}, tmp_path / 'another.pkl')
    with pytest.raises(ValueError, match='2 info files'):
        make_frame_root(tmp_path, tmp_path / 'root')


@pytest.mark.parametrize('names', [(), ('left',), ('left', 'bow', 'right', 'mast', 'stern')])
def test_any_number_of_cameras_under_any_names(synthetic_frame, tmp_path, names):
    folder = tmp_path / 'frame'
    shutil.copytree(synthetic_frame, folder)
    info = load(folder / 'frame.pkl')
    (frame,) = info['data_list']
    frame['images'] = dict(zip(names, frame['images'].values(), strict=False))
    frame.pop('cam_instances', None)
    dump(info, folder / 'frame.pkl')
    root = make_frame_root(folder, tmp_path / 'root')
    nusc = NuScenes(VERSION, str(root), verbose=False)
    (sample,) = nusc.sample
    assert set(sample['data']) == {'LIDAR_TOP', *names}
    axes = {axes.get_label() for axes in render_frame(nusc, sample['token']).axes}
    assert axes == {'from above', 'legend', *names}
