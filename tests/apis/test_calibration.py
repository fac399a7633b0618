"""Calibration files: what is read from a right one, and the line about each mistake."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from projects.cmt_aqr.apis.calibration import read_calibration
from projects.cmt_aqr.usage_error import UsageError


def change(folder: Path, edit) -> Path:
    """Edits the content of the calibration file of a folder; returns the file."""
    file = folder / 'calibration.json'
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))
    return file


def test_json_and_yaml_give_the_entry_of_the_info_file(folder, first_info):
    content = json.loads((folder / 'calibration.json').read_text())
    (folder / 'rig.yaml').write_text(yaml.safe_dump(content))
    for name in ('calibration.json', 'rig.yaml'):
        entry = read_calibration(folder / name)
        assert entry['images'].keys() == content['cameras'].keys()
        for camera, expected in first_info['images'].items():
            for key in ('cam2img', 'lidar2cam'):
                np.testing.assert_allclose(entry['images'][camera][key], expected[key])
        assert entry['lidar_points'] == dict(lidar_path=str(folder / 'cloud.bin'), num_pts_feats=5)


def test_the_example_of_the_page_is_right(repo_root, tmp_path):
    page = (repo_root / 'docs/inference.md').read_text()
    (example,) = re.findall(r'```json\n(.*?)```', page, flags=re.DOTALL)
    (tmp_path / 'rig.json').write_text(example)
    (tmp_path / 'cloud.bin').write_bytes(bytes(40))
    (tmp_path / 'front.jpg').touch()
    assert list(read_calibration(tmp_path / 'rig.json')['images']) == ['front']


def first_camera(content: dict) -> dict:
    return next(iter(content['cameras'].values()))


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (lambda c: c.pop('lidar'), r'calibration.json lacks lidar$'),
        (lambda c: c.update(camera={}), r"unknown key 'camera'; did you mean cameras\?"),
        (lambda c: c.update(cameras=[]), 'cameras must map the name of each camera'),
        (
            lambda c: c['lidar'].update(cloud='clud.bin'),
            r'clud.bin does not exist in .*cloud.bin\?',
        ),
        (lambda c: c['lidar'].update(num_pts_feats=7), r'no whole points of num_pts_feats=7'),
        (lambda c: c['lidar'].update(num_pts_feats=0), r'num_pts_feats is 0; it must be the numb'),
        (lambda c: c['lidar'].update(num_pts_feats='5'), r"num_pts_feats is '5'; it must be"),
        (lambda c: first_camera(c).pop('cam2img'), r'camera CAM_\w+ lacks cam2img'),
        (lambda c: first_camera(c).update(lidar2img=1), r"unknown key 'lidar2img'; did you mean"),
        (lambda c: first_camera(c).update(cam2img=[1]), r'cam2img must be a 3 x 3 matrix'),
        (lambda c: first_camera(c).update(lidar2cam=[['a']]), r'lidar2cam must be a 4 x 4 matrix'),
        (
            lambda c: first_camera(c).update(lidar2cam=(2 * np.eye(4)).tolist()),
            'the last row must be',
        ),
        (
            lambda c: first_camera(c).update(lidar2cam=np.diag([2, 1, 1, 1]).tolist()),
            'lidar2cam: its first three rows and columns are no rotation',
        ),
        (
            lambda c: c['cameras'].pop('CAM_BACK'),
            r'CAM_BACK.jpg has no calibration: calibration.json lacks a camera with this image',
        ),
    ],
)
def test_a_mistake_is_one_line(folder, edit, message):
    file = change(folder, edit)
    with pytest.raises(UsageError, match=message) as error:
        read_calibration(file)
    assert '\n' not in str(error.value)


def test_a_file_of_another_format(tmp_path):
    file = tmp_path / 'rig.json'
    file.write_text('{"lidar": ')
    with pytest.raises(UsageError, match=r'rig.json cannot be read: '):
        read_calibration(file)
