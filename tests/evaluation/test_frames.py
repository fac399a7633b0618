import json
from collections import Counter

import pytest

from projects.cmt_aqr.evaluation.frames import choose_frames, scenes_of

SCENES = ['a'] * 10 + ['b'] * 10 + ['c'] * 2


def test_every_scene_gives_as_many_frames():
    chosen = choose_frames(['a'] * 10 + ['b'] * 20 + ['c'] * 15, 12, seed=0)
    assert chosen == sorted(set(chosen))
    counts = [sum(low <= index < high for index in chosen) for low, high in ((0, 10), (10, 30))]
    assert counts == [4, 4]


def test_what_is_left_over_goes_to_some_scenes_and_short_scenes_give_all():
    chosen = choose_frames(SCENES, 9, seed=3)
    counts = Counter(SCENES[index] for index in chosen)
    assert counts['c'] == 2
    assert sorted((counts['a'], counts['b'])) == [3, 4]


def test_the_choice_depends_on_the_seed_alone():
    assert choose_frames(SCENES, 6, seed=1) == choose_frames(SCENES, 6, seed=1)
    assert len({tuple(choose_frames(SCENES, 6, seed=seed)) for seed in range(10)}) > 5
    assert choose_frames(SCENES, len(SCENES), seed=0) == list(range(len(SCENES)))


@pytest.mark.parametrize('count', [0, 23])
def test_impossible_numbers_are_refused(count):
    with pytest.raises(ValueError, match=f'{count} frames asked for; it can be 1 to 22'):
        choose_frames(SCENES, count, seed=0)


def test_scenes_come_from_the_tables(tmp_path):
    table = [dict(token='t1', scene_token='s1'), dict(token='t2', scene_token='s2')]
    (tmp_path / 'sample.json').write_text(json.dumps(table))
    assert scenes_of(['t2', 't1', 't2'], tmp_path) == ['s2', 's1', 's2']
