"""Comparison of two lists of boxes by the official rule, and the signs of its outcomes."""

from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from projects.cmt_aqr.visualization.scene_boxes import (
    AGAINST_SOUND,
    AGAINST_TRUTH,
    Kind,
    SceneBox,
    compare,
)
from projects.cmt_aqr.visualization.style import STYLES, colour_of


def truth(name: str, x: float, kind: Kind = Kind.TRUTH) -> SceneBox:
    return SceneBox(name, kind, Box([x, 0, 0], [1, 1, 1], Quaternion()))


def found(name: str, x: float, score: float) -> SceneBox:
    box = Box([x, 0, 0], [1, 1, 1], Quaternion(), score=score)
    return SceneBox(name, Kind.PREDICTION, box)


def outcome(items: list[SceneBox], kind: Kind) -> list[tuple[str, float]]:
    return [(item.name, item.box.center[0]) for item in items if item.kind is kind]


def test_the_surest_box_takes_the_nearest_annotation_of_its_class():
    annotated = [truth('car', 0), truth('car', 10), truth('bus', 20)]
    boxes = [found('car', 1, 0.4), found('car', 1.9, 0.9), found('car', 20, 0.8)]
    items = compare(annotated, boxes, AGAINST_TRUTH)
    assert outcome(items, Kind.HIT) == [('car', 1.9)]
    assert outcome(items, Kind.FOUND) == [('car', 0)]
    assert sorted(outcome(items, Kind.FALSE_ALARM)) == [('car', 1), ('car', 20)]
    assert sorted(outcome(items, Kind.MISS)) == [('bus', 20), ('car', 10)]


def test_two_metres_are_too_far():
    items = compare([truth('car', 0)], [found('car', 2.0, 0.5)], AGAINST_TRUTH)
    assert (outcome(items, Kind.HIT), outcome(items, Kind.MISS)) == ([], [('car', 0)])


def test_what_is_not_scored_is_neither_found_nor_missed():
    items = compare([truth('car', 0, Kind.UNSEEN)], [found('car', 0, 0.5)], AGAINST_TRUTH)
    assert outcome(items, Kind.UNSEEN) == [('car', 0)]
    assert outcome(items, Kind.FALSE_ALARM) == [('car', 0)]


def test_boxes_come_and_go():
    sound = [found('car', 0, 0.5), found('bus', 10, 0.5)]
    damaged = [found('car', 0.5, 0.4), found('bus', 30, 0.5)]
    items = compare(sound, damaged, AGAINST_SOUND)
    assert outcome(items, Kind.PREDICTION) == [('car', 0.5)]
    assert outcome(items, Kind.GONE) == [('bus', 10)]
    assert outcome(items, Kind.NEW) == [('bus', 30)]
    assert compare([], [], AGAINST_SOUND) == []


def test_outcomes_differ_in_colour_and_in_sign():
    items = compare([truth('car', 0), truth('bus', 9)], [found('car', 0, 0.9)], AGAINST_TRUTH)
    items += compare([], [found('car', 5, 0.31)], AGAINST_TRUTH)
    labels = {item.kind: item.label for item in items}
    assert labels == {
        Kind.HIT: '✓ car 0.90',
        Kind.FOUND: '',
        Kind.MISS: '✗ bus',
        Kind.FALSE_ALARM: '? car 0.31',
    }
    assert len({colour_of(item) for item in items}) == 4
    assert set(STYLES) == set(Kind)
