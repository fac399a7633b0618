"""Scenes keep their promises: counts, gaps, shared shapes."""

import pickle
from collections import defaultdict

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name

from projects.cmt_aqr.data_preparation.synthetic.taxonomy import (
    CLASSES,
    IGNORED_CLASSES,
    LOOK_ALIKES,
)
from projects.cmt_aqr.data_preparation.synthetic.world import (
    EGO_MIDDLE,
    EGO_SIZE,
    TOP_COUNT,
    EgoPath,
    sample_scene,
    tracks_overlap,
)

TIMES = np.arange(10) * 0.5


@pytest.fixture(scope='module')
def scenes():
    return [sample_scene(np.random.default_rng(i), TIMES, draw_distance=24.0) for i in range(40)]


def class_counts(scenes) -> dict[str, int]:
    """Annotations by class name over the keyframes of some scenes."""
    counts = {kind.name: 0 for kind in CLASSES}
    for scene in scenes:
        for actor, seen in zip(scene.actors, scene.in_range(TIMES), strict=True):
            counts[actor.kind.name] += int(seen.sum())
    return counts


@pytest.mark.parametrize('seed', range(5))
def test_ignored_objects_change_nothing_else(seed, scenes):
    """They come behind the others, which are the same as without them."""
    without = scenes[seed]
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, TIMES, draw_distance=24.0, ignored_objects=3)
    count = len(without.actors)
    assert pickle.dumps(scene.actors[:count]) == pickle.dumps(without.actors)
    assert pickle.dumps((scene.path, scene.weather)) == pickle.dumps(
        (without.path, without.weather)
    )
    ignored = [actor.kind for actor in scene.actors[count:]]
    assert ignored == list(IGNORED_CLASSES)
    assert not any(category_to_detection_name(kind.category) for kind in ignored)
    seen = scene.in_range(TIMES)
    assert (seen[count:].sum(1) >= 2).all()


def test_path_is_the_integral_of_its_velocity():
    path = EgoPath(x=3.0, y=-2.0, yaw=0.5, speed=2.0, turn=0.3)
    times = np.linspace(0, 4, 40001)
    poses = path.poses(times)
    middle = (poses[1:, 2] + poses[:-1, 2]) / 2
    steps = 2.0 * np.diff(times)[:, None] * np.stack([np.cos(middle), np.sin(middle)], axis=1)
    assert poses[-1, :2] == pytest.approx(np.array([3.0, -2.0]) + steps.sum(0), abs=1e-6)
    assert path.poses(np.array([0.0]))[0] == pytest.approx([3.0, -2.0, 0.5])


def test_counts_are_full_and_even(scenes):
    per_keyframe = np.array([scene.in_range(TIMES).sum(0) for scene in scenes])
    assert per_keyframe.max() <= TOP_COUNT
    assert 12 <= per_keyframe.mean() <= 18
    counts = class_counts(scenes)
    assert set(counts) == {kind.name for kind in CLASSES}
    assert max(counts.values()) < 1.6 * min(counts.values()), counts


def test_every_object_stays_for_one_stretch_of_two_keyframes_or_more(scenes):
    for scene in scenes:
        seen = np.pad(scene.in_range(TIMES).astype(int), ((0, 0), (1, 1)))
        assert (np.abs(np.diff(seen)).sum(1) == 2).all()
        assert (seen.sum(1) >= 2).all()


def test_nothing_touches_at_any_time(scenes):
    times = np.linspace(-0.5, TIMES[-1], 101)
    for scene in scenes[:5]:
        ego = scene.path.poses(times)
        heading = np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], axis=1)
        tracks = [(ego[:, :2] + EGO_MIDDLE * heading, ego[:, 2], EGO_SIZE)]
        for actor in scene.actors:
            yaws = np.full(len(times), actor.yaw)
            track = (actor.positions(times), yaws, actor.size[:2])
            assert not any(tracks_overlap(track, other, 0.0) for other in tracks)
            tracks.append(track)


@pytest.mark.parametrize(
    ('gap', 'yaw', 'overlap'),
    [(3.1, 0.0, False), (2.9, 0.0, True), (2.6, np.pi / 2, False), (2.4, np.pi / 2, True)],
)
def test_overlap_by_hand(gap, yaw, overlap):
    # Lengths 4 and 2, widths 2 and 1, along x: they touch at 2 + 1, turned at 2 + 0.5.
    a = (np.zeros((1, 2)), np.zeros(1), np.array([4.0, 2.0]))
    b = (np.array([[gap, 0.0]]), np.array([yaw]), np.array([2.0, 1.0]))
    assert tracks_overlap(a, b, 0.0) == tracks_overlap(b, a, 0.0) == overlap


def test_look_alikes_share_everything_but_looks(scenes):
    kinds = {kind.name: kind for kind in CLASSES}
    for one, other in LOOK_ALIKES:
        assert kinds[one].shape is kinds[other].shape
        assert kinds[one].look != kinds[other].look
    shapes = [kind.shape for kind in CLASSES]
    assert len(CLASSES) - len(set(map(id, shapes))) == len(LOOK_ALIKES)


def test_look_alikes_have_the_same_sizes_and_speeds_on_average(scenes):
    found = defaultdict(list)
    for scene in scenes:
        for actor in scene.actors:
            found[actor.kind.name].append([*actor.size, actor.reflectivity, actor.moving])
    for pair in LOOK_ALIKES:
        one, other = (np.array(found[name], float) for name in pair)
        error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
        assert (np.abs(one.mean(0) - other.mean(0)) < 3.5 * error).all(), pair


def test_boxes_and_solids(scenes):
    for item in scenes[0].visible(1.0):
        assert np.hypot(*item.box.centre[:2]) < 24
        assert item.box.centre[2] == pytest.approx(item.actor.size[2] / 2)
        corners = np.concatenate([b.corners() for b in item.actor.solid_boxes(item.box)])
        cos, sin = np.cos(item.box.yaw), np.sin(item.box.yaw)
        gap = np.abs(corners - item.box.centre) * [0, 0, 1] + np.abs(
            (corners - item.box.centre)[:, :1] * [cos, -sin, 0]
            + (corners - item.box.centre)[:, 1:2] * [sin, cos, 0]
        )
        assert (gap <= item.actor.size / 2 + 1e-9).all()
        assert corners[:, 2].min() == pytest.approx(0, abs=1e-9)
