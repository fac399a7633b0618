"""Scores of plans on scenes placed by hand."""

import numpy as np
import pytest
import torch
from mmengine.fileio import dump

from projects.cmt_aqr.planning import PlanMetric
from projects.cmt_aqr.planning.ego_future import scene_futures

SPEED = 4.0


def scene(instances=(), count=8, name='s'):
    """Infos of a scene driven along x at 4 m/s, with boxes at the same global place throughout."""
    poses = np.stack([np.eye(4)] * count)
    poses[:, 0, 3] = SPEED * 0.5 * np.arange(count)
    futures = scene_futures(poses, 0.5 * np.arange(count))
    tokens = [f'{name}{i}' for i in range(count)]
    return [
        dict(
            token=token,
            scene=name,
            ego2global=pose.tolist(),
            lidar_points=dict(lidar2ego=np.eye(4).tolist()),
            instances=[
                dict(bbox_3d=[x - pose[0, 3], y, 0, 4.0, 2.0, 1.5, 0.0], bbox_label_3d=label)
                for x, y, label in instances
            ],
            ego_future=future._asdict(),
            future_tokens=tokens[i + 1 : i + 7],
        )
        for i, (token, pose, future) in enumerate(zip(tokens, poses, futures, strict=True))
    ]


def score(tmp_path, infos, plans):
    dump(dict(data_list=infos), tmp_path / 'infos.pkl')
    metric = PlanMetric(ann_file=str(tmp_path / 'infos.pkl'))
    samples = [dict(token=token, ego_plan=torch.as_tensor(plan)) for token, plan in plans.items()]
    metric.process(None, samples)
    return metric.evaluate(len(samples))


def path(offsets):
    plan = np.zeros((6, 3))
    plan[:, 0] = SPEED * 0.5 * np.arange(1, 7)
    plan[:, 1] = offsets
    return plan


def test_the_two_readings_of_l2(tmp_path):
    scores = score(tmp_path, scene(), {'s1': path([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])})
    assert [scores[f'plan/L2_at_{s}s'] for s in (1, 2, 3)] == pytest.approx([0.2, 0.4, 0.6])
    assert [scores[f'plan/L2_to_{s}s'] for s in (1, 2, 3)] == pytest.approx([0.15, 0.25, 0.35])
    assert scores['plan/constant_velocity_L2_at_3s'] == pytest.approx(0, abs=1e-5)
    assert scores['plan/driven_L2_at_3s'] == 0
    assert np.isnan(scores['plan/turning_L2_at_3s'])


def test_waypoints_from_two_metres_away_are_missed(tmp_path):
    offsets = [0.0, 1.9, 2.1, 3.0, 0.0, 3.0]
    scores = score(tmp_path, scene(count=9), {'s1': path(offsets), 's2': path(0.0)})
    assert [scores[f'plan/missed_at_{s}s'] for s in (1, 2, 3)] == [0, 50, 50]
    assert scores['plan/missed_to_3s'] == pytest.approx(25)
    assert scores['plan/constant_velocity_missed_to_3s'] == 0


def test_waypoints_after_the_end_of_a_scene_do_not_count(tmp_path):
    far = path(100.0)
    far[:2, 1] = 1.0
    scores = score(tmp_path, scene(count=4), {'s1': far})
    assert scores['plan/L2_at_1s'] == pytest.approx(1.0)
    assert np.isnan(scores['plan/L2_at_2s'])


def test_the_first_keyframe_of_a_scene_does_not_count(tmp_path):
    scores = score(tmp_path, scene(), {'s0': path(5.0), 's1': path(1.0)})
    assert scores['plan/L2_to_3s'] == pytest.approx(1.0)


def test_collisions_of_the_plan_and_of_the_driven_path(tmp_path):
    # A car, from 14.5 to 18.5 m in the lane to the left, and an animal, not detected, in ours.
    infos = scene(instances=[(16.5, 3.0, 0), (11.0, 0.0, -1)])
    scores = score(tmp_path, infos, {'s1': path(0.0), 's2': path(3.0)})
    # From s2, at 4 m, the front reaches 13.0 m at 1.5 s and 15.0 m at 2 s.
    assert scores['plan/collision_at_1s'] == 0
    assert scores['plan/collision_at_2s'] == 50
    assert scores['plan/collision_to_2s'] == pytest.approx(50 / 4)
    assert scores['plan/driven_collision_to_3s'] == 0
    assert scores['plan/constant_velocity_collision_to_3s'] == 0


def test_the_interval_of_the_difference_from_constant_velocity_is_over_scenes(tmp_path):
    # Of each scene one frame has three seconds. Constant velocity is right, so differences are L2.
    offsets = dict(a=0.2, b=0.4, c=0.9)
    infos = [info for name in offsets for info in scene(name=name)]
    scores = score(tmp_path, infos, {f'{name}1': path(off) for name, off in offsets.items()})
    name = 'plan/L2_less_constant_velocity'
    assert scores[name] == pytest.approx(0.5)
    # The ends are draws of one scene three times: each has a chance of 1/27, above 2.5 %.
    assert scores[f'{name}_low'] == pytest.approx(0.2)
    assert scores[f'{name}_high'] == pytest.approx(0.9)
    collisions = [scores[f'plan/collision_less_constant_velocity{end}'] for end in ('', '_low')]
    assert collisions == [0, 0]


def test_frames_of_one_scene_are_drawn_together(tmp_path):
    plans = {'s0': path(9.0), 's1': path(0.2), 's2': path(0.6)}
    scores = score(tmp_path, scene(count=9), plans)
    ends = [scores[f'plan/L2_less_constant_velocity{end}'] for end in ('', '_low', '_high')]
    assert ends == pytest.approx([0.4] * 3)


def test_without_three_seconds_there_is_no_interval(tmp_path):
    scores = score(tmp_path, scene(count=4), {'s1': path(1.0)})
    assert np.isnan(scores['plan/L2_less_constant_velocity_low'])


def test_info_files_without_futures_are_refused(tmp_path):
    dump(dict(data_list=[dict(token='a')]), tmp_path / 'infos.pkl')
    metric = PlanMetric()
    metric.dataset_meta = dict(ann_file=str(tmp_path / 'infos.pkl'))
    metric.process(None, [dict(token='a', ego_plan=torch.zeros(6, 3))])
    with pytest.raises(ValueError, match='--with-ego-future'):
        metric.evaluate(1)
