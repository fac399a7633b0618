"""Tables made from the info file of one real keyframe, held against the info file itself."""

import shutil

import numpy as np
import pytest
from mmengine.fileio import load
from nuscenes import NuScenes

from projects.cmt_aqr.datasets.single_frame import SCENE, VERSION, make_frame_root


@pytest.fixture(scope='module')
def frame(real_frame, tmp_path_factory):
    """The data root, the devkit on it, and the frame of the info file."""
    root = make_frame_root(real_frame, tmp_path_factory.mktemp('frame') / 'root')
    info = load(next(real_frame.glob('*.pkl')))
    return root, NuScenes(version=VERSION, dataroot=str(root), verbose=False), info


def test_the_devkit_takes_every_box_back_to_the_lidar(frame):
    _, nusc, info = frame
    instances = [i for i in info['data_list'][0]['instances'] if i['bbox_label_3d'] >= 0]
    (sample,) = nusc.sample
    _, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    assert len(boxes) == len(instances) == 68
    for box, instance in zip(boxes, instances, strict=True):
        x, y, z, length, width, height, yaw = instance['bbox_3d']
        np.testing.assert_allclose(box.center, (x, y, z), atol=1e-3)
        np.testing.assert_allclose(box.wlh, (width, length, height), atol=1e-4)
        forward = box.orientation.rotation_matrix[:2, 0]
        np.testing.assert_allclose(forward, (np.cos(yaw), np.sin(yaw)), atol=1e-2)


def test_the_devkit_projects_as_the_info_file_does(frame):
    _, nusc, info = frame
    (sample,) = nusc.sample
    for name, image in info['data_list'][0]['images'].items():
        path, _, intrinsic = nusc.get_sample_data(sample['data'][name])
        assert path.endswith(image['img_path'])
        np.testing.assert_allclose(intrinsic, image['cam2img'], rtol=1e-6)


def test_one_scene_of_the_validation_split(frame):
    _, nusc, _ = frame
    assert [scene['name'] for scene in nusc.scene] == [SCENE] == ['scene-0103']
    assert nusc.scene[0]['nbr_samples'] == 1


def test_making_it_again_is_fine_but_nothing_else_is_overwritten(real_frame, tmp_path):
    root = make_frame_root(real_frame, tmp_path / 'root')
    assert make_frame_root(real_frame, root, copy=True) == root
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'precious').write_text('x')
    with pytest.raises(FileExistsError, match='other'):
        make_frame_root(real_frame, other)
    assert (other / 'precious').read_text() == 'x'


def test_missing_folder_and_missing_file_are_named(real_frame, tmp_path):
    with pytest.raises(FileNotFoundError, match='absent'):
        make_frame_root(tmp_path / 'absent', tmp_path / 'root')
    partial = tmp_path / 'partial'
    partial.mkdir()
    shutil.copy(next(real_frame.glob('*.pkl')), partial)
    with pytest.raises(FileNotFoundError, match=r'\.(jpg|bin)'):
        make_frame_root(partial, tmp_path / 'root')
    assert not (tmp_path / 'root' / 'nuscenes_infos_val.pkl').exists()
