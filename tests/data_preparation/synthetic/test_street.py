"""Street scenes keep their promises: counts, gaps, headings, an ego that looks where it drives."""

import pickle

import numpy as np
import pytest
from nuscenes.eval.detection.utils import category_to_detection_name

from projects.cmt_aqr.data_preparation.synthetic.classes import (
    BY_NAME,
    CLASSES,
    IGNORED_CLASSES,
    LOOK_ALIKES,
)
from projects.cmt_aqr.data_preparation.synthetic.crowd import (
    EGO_MIDDLE,
    EGO_SIZE,
    TOP_COUNT,
    footprints_overlap,
)
from projects.cmt_aqr.data_preparation.synthetic.street import sample_scene
from projects.cmt_aqr.data_preparation.synthetic.weather import sample_weather

TIMES = np.arange(10) * 0.5
VEHICLES = {'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'motorcycle', 'bicycle'}


@pytest.fixture(scope='module')
def scenes():
    return [sample_scene(np.random.default_rng(i), TIMES, draw_distance=24.0) for i in range(12)]


def annotations(scenes) -> dict[str, int]:
    """Annotations by class name over the keyframes of some scenes."""
    counts = {kind.name: 0 for kind in CLASSES}
    for scene in scenes:
        for actor, seen in zip(scene.actors, scene.in_range(TIMES), strict=True):
            if actor.annotated:
                counts[actor.kind.name] += int(seen.sum())
    return counts


def test_counts_are_like_a_street(scenes):
    counts = annotations(scenes)
    total = sum(counts.values())
    assert 18 < total / len(scenes) / len(TIMES) < 35
    assert sum(counts[name] for name in VEHICLES) > 0.4 * total
    assert counts['car'] == max(counts[name] for name in VEHICLES)
    assert min(counts.values()) > 0, counts


def test_no_keyframe_has_too_many_objects(scenes):
    for scene in scenes:
        objects = np.array([actor.annotated for actor in scene.actors])
        assert scene.in_range(TIMES)[objects].sum(0).max() <= TOP_COUNT


def test_every_object_stays_for_one_stretch_of_two_keyframes_or_more(scenes):
    for scene in scenes:
        objects = np.array([actor.annotated for actor in scene.actors])
        seen = np.pad(scene.in_range(TIMES)[objects].astype(int), ((0, 0), (1, 1)))
        assert (np.abs(np.diff(seen)).sum(1) == 2).all()
        assert (seen.sum(1) >= 2).all()


def test_nothing_touches_at_any_time(scenes):
    times = np.linspace(-0.5, TIMES[-1], 51)
    for scene in scenes[:4]:
        ego = scene.path.poses(times)
        heading = np.stack([np.cos(ego[:, 2]), np.sin(ego[:, 2])], axis=1)
        prints = [(ego[:, :2] + EGO_MIDDLE * heading, ego[:, 2], EGO_SIZE)]
        for actor in (a for a in scene.actors if a.annotated):
            poses = actor.track.poses(times)
            own = (poses[:, :2], poses[:, 2], actor.size[:2])
            assert not any(footprints_overlap(own, other, 0.0) for other in prints)
            prints.append(own)


def test_what_drives_looks_where_it_drives(scenes):
    checked = 0
    for scene in scenes:
        for actor in scene.actors:
            if actor.track.speed(2.0) < 1.0:
                continue
            before, after = actor.track.poses(np.array([1.9, 2.1]))
            course = np.arctan2(*(after - before)[1::-1])
            turn = (course - actor.track.poses(np.array([2.0]))[0, 2] + np.pi) % (2 * np.pi)
            assert turn - np.pi == pytest.approx(0, abs=0.1)
            checked += 1
    assert checked > 50


def test_the_ego_drives_at_the_speeds_of_a_town():
    scenes = [sample_scene(np.random.default_rng(i), TIMES, draw_distance=10.0) for i in range(15)]
    speeds = np.array([[scene.path.speed(time) for time in TIMES] for scene in scenes])
    assert 3 < speeds.mean() < 7
    assert speeds.max() <= 13 * 1.1
    assert speeds.min() < 0.5
    changes = np.abs(np.diff(speeds, axis=1)) / 0.5
    assert changes.max() <= 6.0 + 1e-6


def test_the_ego_stays_in_its_lane(scenes):
    for scene in scenes:
        poses = scene.path.poses(TIMES)
        road = scene.roadway
        offsets = road.line.gap(poses[:, :2])
        lane = np.round((offsets - road.lane_width / 2) / road.lane_width)
        assert offsets == pytest.approx((lane + 0.5) * road.lane_width, abs=0.1)
        assert len(set(lane)) == 1


@pytest.mark.parametrize('seed', range(2))
def test_ignored_objects_change_no_other_object(seed, scenes):
    without = scenes[seed]
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, TIMES, draw_distance=24.0, ignored_objects=3)
    known = [a for a in without.actors if a.annotated]
    found = [a for a in scene.actors if a.annotated]
    assert pickle.dumps(found[: len(known)]) == pickle.dumps(known)
    assert pickle.dumps((scene.path, scene.weather)) == pickle.dumps(
        (without.path, without.weather)
    )
    ignored = [actor.kind for actor in found[len(known) :]]
    assert ignored == list(IGNORED_CLASSES)
    assert not any(category_to_detection_name(kind.category) for kind in ignored)


def test_scenery_is_seen_and_not_annotated(scenes):
    names = {actor.kind.name for scene in scenes for actor in scene.actors if not actor.annotated}
    assert names == {'house', 'wall', 'poster', 'bush', 'tree', 'pole', 'bin', 'post'}
    scenery = [i.actor for scene in scenes for i in scene.visible(1.0) if not i.actor.annotated]
    assert len(scenery) > 10 * len(scenes)


def test_look_alikes_share_a_shape_and_no_look():
    for one, other in LOOK_ALIKES:
        assert BY_NAME[one].shape is BY_NAME[other].shape
        assert BY_NAME[one].look != BY_NAME[other].look
    assert len({id(kind.shape) for kind in CLASSES}) == len(CLASSES) - len(LOOK_ALIKES)


def test_shares_of_night_and_rain():
    weathers = [sample_weather(np.random.default_rng(i)) for i in range(2000)]
    assert np.mean([w.night for w in weathers]) == pytest.approx(1 / 8, abs=0.03)
    assert np.mean([w.rain for w in weathers]) == pytest.approx(1 / 5, abs=0.03)


def test_attributes_follow_motion_and_driver(scenes):
    found = {
        (actor.driven, actor.track.speed(1.0) > 0.2): actor.attribute(1.0)
        for scene in scenes
        for actor in scene.actors
        if actor.kind.name == 'car'
    }
    assert (
        found.items()
        <= {
            (True, True): 'vehicle.moving',
            (True, False): 'vehicle.stopped',
            (False, False): 'vehicle.parked',
        }.items()
    )
    assert len(found) >= 2


def test_boxes_and_solids(scenes):
    for item in scenes[0].visible(1.0):
        assert item.box.centre[2] == pytest.approx(item.actor.size[2] / 2)
        corners = np.concatenate([b.corners() for b in item.actor.solid_boxes(item.box)])
        cos, sin = np.cos(item.box.yaw), np.sin(item.box.yaw)
        x, y, _ = (corners - item.box.centre).T
        local = np.abs(np.stack([cos * x + sin * y, cos * y - sin * x], axis=1))
        assert (local <= item.actor.size[:2] / 2 + 1e-9).all()
        assert corners[:, 2].min() == pytest.approx(0, abs=1e-9)
        assert corners[:, 2].max() <= item.actor.size[2] + 1e-9
