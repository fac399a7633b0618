"""What is drawn depends on seed, sample and draw alone."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from projects.cmt_aqr.datasets.failures import DrawnFailure, SensorFailure, random_stream


@dataclass(frozen=True)
class DrawnNumber(DrawnFailure):
    number: int
    table: np.ndarray

    def alter(self, results):
        results['altered'] = self.number


class Number(SensorFailure):
    """Draws a number below its level; in half the samples nothing at all."""

    SEVERITIES = (10, 1000)

    def draw(self, results, rng):
        number = int(rng.integers(2 * self.level))
        return DrawnNumber(number, np.zeros(2)) if number < self.level else None


class OtherNumber(Number):
    pass


def drawn(failure, **sample) -> list[str]:
    return [one.key for one in failure(dict(dict(token='a'), **sample))['failures']]


def numbers(failure, **sample) -> list:
    return [drawn(failure, token=str(i), **sample) for i in range(20)]


def test_same_seed_sample_and_draw_same_failure():
    assert numbers(Number(seed=3)) == numbers(Number(seed=3))
    assert numbers(Number(seed=3), draw=0) == numbers(Number(seed=3))


@pytest.mark.parametrize(
    ('failure', 'sample'),
    [(Number(seed=4), {}), (Number(seed=3), dict(draw=1)), (OtherNumber(seed=3), {})],
    ids=['seed', 'draw', 'kind'],
)
def test_another_seed_draw_or_kind_draws_anew(failure, sample):
    assert numbers(failure, **sample) != numbers(Number(seed=3))


def test_samples_differ_and_some_are_spared():
    found = numbers(Number(severity=2))
    assert len({tuple(keys) for keys in found}) > 5
    assert [] in found


def test_random_numbers_are_the_same_in_any_process_on_any_machine():
    """Python's own hash of a string, say, is another one in every process."""
    assert random_stream('Fog', 1, 'token', 0).integers(10**9) == 564986853


def test_failures_stand_in_the_order_of_the_pipeline():
    sample = dict(token='a', failures=['earlier'])
    failures = [Number(severity=2, seed=seed)(sample) for seed in range(4)][-1]['failures']
    assert failures[0] == 'earlier'
    assert len(failures) > 1


def test_what_was_drawn_alters_the_sample_once():
    for token in map(str, range(10)):
        sample = Number(severity=2)(dict(token=token))
        assert sample.get('altered') == next((one.number for one in sample['failures']), None)


def test_keys_tell_every_field():
    one = DrawnNumber(1, np.arange(3000.0))
    keys = {
        one.key,
        DrawnNumber(2, np.arange(3000.0)).key,
        DrawnNumber(1, np.arange(3000)).key,
        DrawnNumber(1, np.arange(3000.0).reshape(2, 1500)).key,
        DrawnNumber(1, np.where(np.arange(3000) == 1500, 0, np.arange(3000.0))).key,
    }
    assert len(keys) == 5
    assert DrawnNumber(1, np.arange(3000.0)).key == one.key == pickle.loads(pickle.dumps(one)).key
    assert one.key.startswith('DrawnNumber(number=1, table=')
    assert len(one.key) < 60


def test_a_failure_damages_nothing_unless_it_says_so():
    one = DrawnNumber(1, np.zeros(1))
    points, image = np.ones((4, 5), np.float32), np.ones((2, 2, 3), np.uint8)
    assert one.damage_points(points, np.eye(4), 0.0) is points
    assert one.damage_image(image, 'CAM_FRONT') is image
    assert one.lidar_health(np.zeros((3, 4, 2))).tolist() == [[1.0] * 4] * 3
    assert one.camera_health('CAM_FRONT', (1, 2)).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize('severity', [0, 3, 1.5, 'mild'])
def test_severities_that_a_kind_does_not_have(severity):
    with pytest.raises(ValueError, match=rf'Number: severity is .*{severity}.* from 1 to 2'):
        Number(severity=severity)


def test_a_failure_after_the_loaders_would_do_nothing_and_is_refused():
    with pytest.raises(ValueError, match=r"Number found \['img'\] already loaded.*stand first"):
        Number()(dict(token='a', img=[]))


def test_a_sample_without_a_token_is_refused():
    with pytest.raises(KeyError, match='no token'):
        Number()(dict(sample_idx=3))
