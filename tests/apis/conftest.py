"""A folder with one frame of the synthetic database, and a shipped detector."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.fileio import load

from projects.cmt_aqr.apis import init_detector


@pytest.fixture(scope='session')
def detector():
    """The shipped tiny CMT on the CPU."""
    return init_detector('cmt_tiny_synthetic', device='cpu')


@pytest.fixture(scope='session')
def info_file(synthetic_root) -> Path:
    return synthetic_root / 'nuscenes_infos_val.pkl'


@pytest.fixture(scope='session')
def first_info(info_file) -> dict:
    return load(info_file)['data_list'][0]


@pytest.fixture
def folder(synthetic_root, first_info, tmp_path) -> Path:
    """The first frame in a folder of its own, with short names and a calibration file."""
    cameras = {}
    for name, camera in first_info['images'].items():
        shutil.copy(
            synthetic_root / 'samples' / name / camera['img_path'], tmp_path / f'{name}.jpg'
        )
        matrices = {key: np.array(camera[key]).tolist() for key in ('cam2img', 'lidar2cam')}
        cameras[name] = dict(image=f'{name}.jpg', **matrices)
    cloud = synthetic_root / 'samples/LIDAR_TOP' / first_info['lidar_points']['lidar_path']
    shutil.copy(cloud, tmp_path / 'cloud.bin')
    content = dict(lidar=dict(cloud='cloud.bin', num_pts_feats=5), cameras=cameras)
    (tmp_path / 'calibration.json').write_text(json.dumps(content))
    return tmp_path
