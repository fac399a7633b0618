"""Ego futures in the info files of the synthetic database."""

import shutil

import numpy as np
import pytest
from mmengine.fileio import load

from projects.cmt_aqr.data_preparation.ego_futures import add_ego_futures
from projects.cmt_aqr.data_preparation.info_files import info_files


@pytest.fixture
def files(synthetic_root, tmp_path):
    return [
        shutil.copy(file, tmp_path / file.name) for file in info_files(synthetic_root, 'v1.0-mini')
    ]


def test_futures_are_the_poses_of_later_keyframes(synthetic_root, files):
    add_ego_futures(synthetic_root, files, version='v1.0-mini')
    infos = load(files[1])['data_list']
    by_token = {info['token']: info for info in infos}
    counted = []
    for info in infos:
        future = info['ego_future']
        counted.append(int(future['mask'].sum()))
        assert len(info['future_tokens']) == counted[-1]
        for token, waypoint in zip(info['future_tokens'], future['waypoints'], strict=False):
            later = np.array(by_token[token]['ego2global'])[:3, 3]
            here = np.linalg.inv(info['ego2global'])
            seen = here[:3, :3] @ later + here[:3, 3]
            np.testing.assert_allclose(waypoint[:2], seen[:2], atol=1e-4)
    # Two scenes of three keyframes.
    assert sorted(counted) == [0, 0, 1, 1, 2, 2]


def test_other_entries_stay(synthetic_root, files):
    before = load(files[0])
    add_ego_futures(synthetic_root, files[:1], version='v1.0-mini')
    after = load(files[0])
    assert after['metainfo'] == before['metainfo']
    for old, new in zip(before['data_list'], after['data_list'], strict=True):
        assert set(new) - set(old) == {'ego_future', 'future_tokens'}
