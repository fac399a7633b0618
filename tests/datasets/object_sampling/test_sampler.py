"""Objects out of a database of three, and what is said where it is not as it should be."""

import pickle
from collections import Counter

import numpy as np
import pytest

from projects.cmt_aqr.datasets.object_sampling import JointDataBaseSampler
from projects.cmt_aqr.datasets.object_sampling import sampler as sampler_module
from projects.cmt_aqr.datasets.object_sampling.database import SETTINGS_FILE, SHARD_FILE
from projects.cmt_aqr.datasets.reading import DamagedFileError, MissingFileError

NO_BOXES, NO_LABELS = np.empty((0, 9), dtype=np.float32), np.empty(0, dtype=int)


def numbers(drawn: np.ndarray) -> list[int]:
    """Which objects of the database."""
    return sorted(drawn['sample'].tolist())


def test_each_object_once(sampler_config):
    # Of the eight cars and eight buses that are drawn, most are one another.
    sampler = JointDataBaseSampler(**sampler_config())
    drawn = [numbers(sampler.draw(NO_BOXES, NO_LABELS)) for _ in range(20)]
    assert all(len(set(found)) == len(found) for found in drawn)
    assert [0, 1, 2] in drawn


@pytest.mark.parametrize('label', [1, -1], ids=['detected', 'ignored'])
@pytest.mark.parametrize(
    ('box', 'left_out'),
    [
        ([8.0, 20, 0, 2, 2, 2, 0], True),  # itself
        ([9.5, 20, 0, 2, 2, 2, 0], True),
        ([8.0, 20, 0, 0.5, 0.5, 2, 0.3], True),  # within
        ([10.1, 20, 0, 2, 2, 2, 0], False),
        ([10.1, 20, 0, 2, 2, 2, 0.8], True),  # a corner of it
        ([12.0, 24, 0, 12, 0.1, 2, np.pi / 4], True),  # its axis goes through the bus
        ([12.0, 24, 0, 12, 0.1, 2, -np.pi / 4], False),
    ],
)
def test_objects_that_overlap_one_of_the_sample_are_left_out(sampler_config, box, left_out, label):
    sampler = JointDataBaseSampler(**sampler_config())
    boxes = np.array([[*box, 0, 0]], dtype=np.float32)
    drawn = {n for _ in range(20) for n in numbers(sampler.draw(boxes, np.array([label])))}
    assert {0, 1, 2} - drawn == ({2} if left_out else set())


def test_of_objects_that_overlap_one_is_left(sampler_config, objects, rewrite):
    near, far = objects[:2]
    rewrite([near, dict(far, box=near['box'] + np.eye(9, dtype=np.float32)[1])])
    sampler = JointDataBaseSampler(**sampler_config())
    assert {len(sampler.draw(NO_BOXES, NO_LABELS)) for _ in range(20)} == {1}


@pytest.mark.parametrize(
    ('rate', 'labels', 'asked'),
    [
        (1.0, [], {'car': 8, 'bus': 8}),
        (1.0, [1] * 6 + [0], {'car': 2, 'bus': 7}),  # label 1 is the car
        (1.0, [1] * 6 + [-1] * 9, {'car': 2, 'bus': 8}),  # an ignored object is no bus
        (0.5, [1] * 6, {'car': 1, 'bus': 4}),
        (1.0, [1] * 9 + [0] * 8, {}),
    ],
)
def test_a_class_is_filled_up(sampler_config, objects, rewrite, rate, labels, asked):
    east = np.eye(9, dtype=np.float32)[0]
    car, bus = objects[0], objects[2]
    # So many that none is drawn twice, and apart from one another.
    rewrite([dict(one, box=one['box'] + 3 * n * east) for one in (car, bus) for n in range(5000)])
    sampler = JointDataBaseSampler(**sampler_config(rate=rate))
    boxes = np.tile(np.array([0, -100, 0, 1, 1, 1, 0, 0, 0]), (len(labels), 1))
    drawn = sampler.draw(boxes, np.array(labels))
    assert Counter(sampler.classes[label] for label in sampler.labels_of(drawn)) == asked


def test_points_and_patches(sampler_config):
    sampler = JointDataBaseSampler(**sampler_config())
    near, far, bus = sampler.database.index
    np.testing.assert_allclose(sampler.load(far, (), {}).points, [[0, 19, 0, 1, 1]] * 5)
    assert sampler.load(far, (), {}).patches == {}
    (patch,) = sampler.load(near, ['CAM_FRONT', 'CAM_BACK'], {}).patches.values()
    np.testing.assert_array_equal(patch, np.full((7, 5, 3), 200))
    assert sampler.load(bus, ['CAM_FRONT'], {}).patches == {}
    every = sampler.database.index
    assert sampler.seen_by(every, 'CAM_FRONT').tolist() == [True, True, False]
    assert not sampler.seen_by(every, 'CAM_BACK').any()


def test_channels_of_the_points(sampler_config):
    sampler = JointDataBaseSampler(**sampler_config(use_dim=(0, 1, 2, 4)))
    (first, *_) = sampler.database.index
    assert sampler.load(first, (), {}).points.shape == (5, 4)
    with pytest.raises(ValueError, match=r'use_dim is \[5\]; points have 5 channels'):
        JointDataBaseSampler(**sampler_config(use_dim=[5]))


def test_objects_of_few_points(sampler_config, objects, rewrite, monkeypatch):
    said = []
    monkeypatch.setattr(sampler_module, 'print_log', lambda text, **options: said.append(text))
    near, far, bus = objects
    rewrite([dict(near, points=near['points'][:4]), dict(far, points=far['points'][:3]), bus])
    sampler = JointDataBaseSampler(**sampler_config(min_points=5))
    assert numbers(sampler.draw(NO_BOXES, NO_LABELS)) == [2]
    (warning,) = said
    assert 'has no object with enough points of car: nothing' in warning


def test_an_unknown_class_to_paste(sampler_config):
    config = dict(sampler_config(), sample_groups=dict(car=1, trm=2))
    with pytest.raises(ValueError, match=r"names \['trm'\]; the classes are \['bus', 'car'\]"):
        JointDataBaseSampler(**config)


def test_a_missing_database_names_the_command(sampler_config, database):
    unfinished = database.with_name('nuscenes_objects.unfinished')
    database.rename(unfinished)
    with pytest.raises(
        FileNotFoundError, match=r'is not finished; continue .*create_data\.py .* --wi'
    ):
        JointDataBaseSampler(**sampler_config())
    unfinished.rename(database.with_name('elsewhere'))
    with pytest.raises(
        FileNotFoundError, match=r'does not exist; make it .*create_data\.py .* --w'
    ):
        JointDataBaseSampler(**sampler_config())


def test_an_older_database_names_the_command(sampler_config, database):
    (database / SETTINGS_FILE).unlink()
    (database / '0_car_0.bin').touch()
    message = r'older ones.* ignored classes are named barrier.*create_data\.py .* --with-database'
    with pytest.raises(ValueError, match=message):
        JointDataBaseSampler(**sampler_config())


def test_files_that_cannot_be_read_are_named(sampler_config, database):
    sampler = JointDataBaseSampler(**sampler_config())
    far = sampler.database.index[1]
    shard = database / SHARD_FILE.format(0)
    content = shard.read_bytes()
    shard.write_bytes(content[: far['start'] + 100] + b'no image' * 1000)
    with pytest.raises(
        DamagedFileError, match=r'sample t: .*shard_00000\.bin cannot be read.*patch'
    ):
        sampler.load(far, ['CAM_FRONT'], dict(token='t'))
    shard.write_bytes(content[: far['start'] + 50])
    with pytest.raises(
        DamagedFileError, match=r'shard_00000\.bin cannot be read: it ends too early'
    ):
        sampler.load(far, (), dict(token='t'))
    shard.unlink()
    with pytest.raises(MissingFileError, match=r'object to paste in .*shard_00000\.bin does not'):
        sampler.load(far, (), dict(token='t'))


def test_workers_draw_objects_of_their_own(sampler_config, objects, rewrite):
    rewrite(objects[:1] * 1000)
    sampler = JointDataBaseSampler(**sampler_config(rate=0.125))
    drawn = []
    for seed in (1, 2, 1):
        np.random.seed(seed)  # as each worker is seeded
        drawn.append(numbers(sampler.draw(NO_BOXES, NO_LABELS)))
    assert len(drawn[0]) == 1
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]


def test_workers_share_the_index(sampler_config, objects, rewrite):
    rewrite(objects * 20_000)
    sampler = JointDataBaseSampler(**sampler_config())
    index = sampler.database.index
    assert isinstance(index, np.memmap)
    assert index.mode == 'r'
    assert len(pickle.dumps(sampler.database)) < 1000
    copy = pickle.loads(pickle.dumps(sampler))
    assert isinstance(copy.database.index, np.memmap)
    # Apart from it there are four bytes an object, and no object of Python.
    assert len(pickle.dumps(sampler)) < 4.1 * len(index) < index.nbytes / 10
