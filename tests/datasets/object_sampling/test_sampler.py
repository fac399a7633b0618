"""Objects out of a database of three, and what is said where it is not as it should be."""

from collections import Counter

import numpy as np
import pytest
from mmengine.fileio import dump, load

from projects.cmt_aqr.datasets.object_sampling import JointDataBaseSampler
from projects.cmt_aqr.datasets.object_sampling import sampler as sampler_module
from projects.cmt_aqr.datasets.reading import DamagedFileError, MissingFileError

NO_BOXES, NO_LABELS = np.empty((0, 9), dtype=np.float32), np.empty(0, dtype=int)


def names(drawn: list[dict]) -> list[str]:
    return sorted(entry['path'] for entry in drawn)


@pytest.fixture
def all_names(database) -> list[str]:
    entries = load(database / 'nuscenes_dbinfos_train.pkl')
    return sorted(entry['path'] for found in entries.values() for entry in found)


def test_each_object_once(sampler_config, all_names):
    # Of the eight cars and eight buses that are drawn, most are one another.
    sampler = JointDataBaseSampler(**sampler_config())
    drawn = [names(sampler.draw(NO_BOXES, NO_LABELS)) for _ in range(20)]
    assert all(len(set(found)) == len(found) for found in drawn)
    assert all_names in drawn


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
def test_objects_that_overlap_one_of_the_sample_are_left_out(
    sampler_config, all_names, box, left_out
):
    sampler = JointDataBaseSampler(**sampler_config())
    boxes = np.array([[*box, 0, 0]], dtype=np.float32)
    drawn = {name for _ in range(20) for name in names(sampler.draw(boxes, np.array([1])))}
    assert set(all_names) - drawn == ({all_names[0]} if left_out else set())
    assert 'bus' in all_names[0]


def test_of_objects_that_overlap_one_is_left(sampler_config, database):
    entries = load(database / 'nuscenes_dbinfos_train.pkl')
    near, far = entries['car']
    far['box3d_lidar'] = near['box3d_lidar'] + np.eye(9, dtype=np.float32)[1]
    dump(dict(car=[near, far]), database / 'nuscenes_dbinfos_train.pkl')
    sampler = JointDataBaseSampler(**sampler_config())
    assert {len(sampler.draw(NO_BOXES, NO_LABELS)) for _ in range(20)} == {1}


@pytest.mark.parametrize(
    ('rate', 'labels', 'asked'),
    [
        (1.0, [], {'car': 8, 'bus': 8}),
        (1.0, [1] * 6 + [0], {'car': 2, 'bus': 7}),  # label 1 is the car
        (0.5, [1] * 6, {'car': 1, 'bus': 4}),
        (1.0, [1] * 9 + [0] * 8, {}),
    ],
)
def test_a_class_is_filled_up(sampler_config, database, rate, labels, asked):
    entries = load(database / 'nuscenes_dbinfos_train.pkl')
    place = np.eye(9, dtype=np.float32)
    apart = {  # so many that none is drawn twice, and apart from one another
        name: [
            dict(found[0], box3d_lidar=found[0]['box3d_lidar'] + 3 * number * place[0])
            for number in range(5000)
        ]
        for name, found in entries.items()
    }
    dump(apart, database / 'nuscenes_dbinfos_train.pkl')
    sampler = JointDataBaseSampler(**sampler_config(rate=rate))
    boxes = np.tile(np.array([0, -100, 0, 1, 1, 1, 0, 0, 0]), (len(labels), 1))
    drawn = sampler.draw(boxes, np.array(labels))
    assert Counter(entry['name'] for entry in drawn) == asked


def test_points_and_patches(sampler_config):
    sampler = JointDataBaseSampler(**sampler_config())
    near, far = sampler.db_infos['car']
    points = sampler.load_points(far, {}).tensor.numpy()
    np.testing.assert_allclose(points, [[0, 19, 0, 1, 1]] * 5)
    assert np.all(sampler.load_patch(near, 'CAM_FRONT', {}) == np.full((7, 5, 3), 200))


def test_objects_of_few_points_and_unknown_classes(sampler_config, monkeypatch):
    said = []
    monkeypatch.setattr(sampler_module, 'print_log', lambda text, **options: said.append(text))
    config = sampler_config(prepare=dict(filter_by_min_points=dict(car=6, bus=5, tram=5)))
    sampler = JointDataBaseSampler(**config)
    assert names(sampler.draw(NO_BOXES, NO_LABELS)) == ['nuscenes_gt_database/0_bus_2.bin']
    (warning,) = said
    assert 'has no object with enough points of car: none' in warning


def test_an_unknown_class_to_paste(sampler_config):
    config = dict(sampler_config(), sample_groups=dict(car=1, trm=2))
    with pytest.raises(ValueError, match=r"names \['trm'\]; the classes are \['bus', 'car'\]"):
        JointDataBaseSampler(**config)


def test_a_missing_database_names_the_command(sampler_config, database):
    (database / 'nuscenes_dbinfos_train.pkl').unlink()
    with pytest.raises(
        FileNotFoundError,
        match=r'objects to paste, does not exist .*create_data\.py .* --with-database',
    ):
        JointDataBaseSampler(**sampler_config())


def test_files_that_cannot_be_read_are_named(sampler_config, database):
    sampler = JointDataBaseSampler(**sampler_config())
    far = sampler.db_infos['car'][1]
    stem = database / far['path'].removesuffix('.bin')
    stem.with_suffix('.bin').unlink()
    with pytest.raises(MissingFileError, match=r'sample t: points of .*0_car_1\.bin does not'):
        sampler.load_points(far, dict(token='t'))
    stem.with_name(f'{stem.name}_CAM_FRONT.jpg').write_bytes(b'no image')
    with pytest.raises(DamagedFileError, match=r'patch of .*0_car_1_CAM_FRONT\.jpg cannot be read'):
        sampler.load_patch(far, 'CAM_FRONT', dict(token='t'))


def test_workers_draw_objects_of_their_own(sampler_config, database):
    entries = load(database / 'nuscenes_dbinfos_train.pkl')
    many = [dict(entries['car'][0], path=f'{i}.bin') for i in range(1000)]
    dump(dict(car=many), database / 'nuscenes_dbinfos_train.pkl')
    sampler = JointDataBaseSampler(**sampler_config(rate=0.125))
    drawn = []
    for seed in (1, 2, 1):
        np.random.seed(seed)  # as each worker is seeded
        drawn.append(names(sampler.draw(NO_BOXES, NO_LABELS)))
    assert len(drawn[0]) == 1
    assert drawn[0] != drawn[1]
    assert drawn[0] == drawn[2]
