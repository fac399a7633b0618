"""Packing of ego futures."""

import numpy as np
import pytest

from projects.cmt_aqr.planning import PackEgoFuture

FUTURE = dict(
    waypoints=np.ones((6, 3), dtype=np.float32),
    mask=np.array([True] * 4 + [False] * 2),
    status=np.array([np.nan, np.nan], dtype=np.float32),
    command=1,
)


def pack(**results):
    return PackEgoFuture(keys=['points'], meta_keys=['token'])(dict(token='a', **results))


def test_futures_are_inputs():
    ego = pack(ego_future=FUTURE)['inputs']['ego']
    assert {name: tuple(x.shape) for name, x in ego.items()} == dict(
        waypoints=(6, 3), mask=(6,), status=(2,), command=(3,)
    )
    assert ego['mask'].tolist() == [1, 1, 1, 1, 0, 0]
    assert ego['command'].tolist() == [0, 1, 0]
    assert ego['status'].isnan().all()


def test_a_sample_without_a_future_has_none():
    """A single frame is planned for all the same; training names the remedy."""
    assert 'ego' not in pack()['inputs']


def test_a_plan_can_be_drawn():
    pose = np.diag([1.0, 1, 1, 1])
    sample = pack(lidar_points=dict(lidar2ego=pose))['data_samples']
    assert np.array_equal(sample.metainfo['lidar2ego'], pose)


def test_an_augmented_scene_is_refused():
    with pytest.raises(ValueError, match='augments the scene'):
        pack(ego_future=FUTURE, lidar_aug_matrix=np.eye(4))
