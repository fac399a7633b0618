"""Samples of info files, of the synthetic database and of others."""

import copy
import pickle

import numpy as np
import pytest
import torch
from mmdet3d.datasets import NuScenesDataset

from projects.cmt_aqr.datasets import CmtDataset

INFOS = 'nuscenes_infos_train.pkl'
CLASSES = ['pedestrian', 'car', 'truck']  # neither the order nor all of nuScenes'
SIDES = ('FRONT', 'FRONT_LEFT', 'FRONT_RIGHT', 'BACK', 'BACK_LEFT', 'BACK_RIGHT')
PREFIX = {
    'pts': 'samples/LIDAR_TOP',
    'sweeps': 'sweeps/LIDAR_TOP',
    **{f'CAM_{side}': f'samples/CAM_{side}' for side in SIDES},
}
EYE = np.eye(4).tolist()


def make(root, kind=CmtDataset, **options):
    """A dataset of the synthetic database."""
    given = dict(
        data_root=str(root),
        ann_file=INFOS,
        data_prefix=dict(PREFIX),
        metainfo=dict(classes=CLASSES, version='v1.0-mini'),
        modality=dict(use_lidar=True, use_camera=True),
        pipeline=[],
    )
    return kind(**{**given, **options})


@pytest.mark.parametrize('flag', [False, True])
def test_infos_of_nuscenes_give_the_samples_of_mmdetection3d(synthetic_root, flag):
    ours = make(synthetic_root, use_valid_flag=flag)
    theirs = make(synthetic_root, NuScenesDataset, use_valid_flag=flag)
    assert len(ours) == len(theirs) == 6
    for index in range(6):
        found, expected = ours.get_data_info(index), theirs.get_data_info(index)
        boxes = found.pop('ann_info'), expected.pop('ann_info')
        assert torch.equal(*(item['gt_bboxes_3d'].tensor for item in boxes))
        assert np.array_equal(*(item['gt_labels_3d'] for item in boxes))
        assert found == {key: expected[key] for key in expected if key != 'num_pts_feats'}


@pytest.fixture
def write(tmp_path):
    """A function that writes an info file of two samples, and returns a dataset of it."""
    entry = dict(
        lidar_points=dict(lidar_path='clouds/0.bin'),
        images=dict(left=dict(img_path='left/0.jpg', cam2img=np.eye(3).tolist(), lidar2cam=EYE)),
        instances=[dict(bbox_3d=[1.0, 2, 3, 4, 5, 6, 0.5], bbox_label_3d=7)],
        scene='north',
    )
    metainfo = dict(categories=dict(crate=7, van=3), point_columns=['x', 'y', 'z', 'intensity'])

    def write(change=lambda entry, metainfo: None, **options):
        other = dict(copy.deepcopy(entry), instances=[], scene='south')
        other['lidar_points']['lidar_path'] = 'clouds/1.bin'
        content = dict(metainfo=dict(metainfo), data_list=[copy.deepcopy(entry), other])
        change(content['data_list'][0], content['metainfo'])
        (tmp_path / 'infos.pkl').write_bytes(pickle.dumps(content))
        return CmtDataset(data_root=str(tmp_path), ann_file='infos.pkl', pipeline=[], **options)

    return write


def test_an_entry_needs_no_more_than_files_calibration_and_boxes(write, tmp_path):
    dataset = write()
    assert dataset.metainfo['classes'] == ('van', 'crate')
    full, empty = dataset.get_data_info(0), dataset.get_data_info(1)
    assert full['token'] == full['lidar_path'] == f'{tmp_path}/clouds/0.bin'
    assert full['images']['left']['img_path'] == f'{tmp_path}/left/0.jpg'
    assert full['point_columns'] == ['x', 'y', 'z', 'intensity']
    boxes = full['ann_info']['gt_bboxes_3d']
    assert torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1).tolist() == [
        [1, 2, 3, 4, 5, 6, 0.5, 0, 0]
    ]
    assert full['ann_info']['gt_labels_3d'].tolist() == [1]
    assert empty['ann_info']['gt_bboxes_3d'].tensor.shape == (0, 9)


def test_samples_without_boxes_are_not_replaced(write):
    assert write()[1]['lidar_path'].endswith('1.bin')


def test_a_test_does_without_annotations(write):
    def remove(entry, metainfo):
        del entry['instances']

    assert 'eval_ann_info' not in write(remove, test_mode=True).get_data_info(0)
    with pytest.raises(ValueError, match=r'clouds|0: it has no instances; .* instances=\[\]'):
        write(remove)


def test_scenes_are_chosen_by_name(write):
    (sample,) = write(scenes=['south'])
    assert sample['scene'] == 'south'
    with pytest.raises(ValueError, match=r"scenes: .*no 'sout'; did you mean 'south'"):
        write(scenes=['sout'])


def test_other_categories_are_ignored(write):
    labels = write(metainfo=dict(classes=['van'])).get_data_info(0)['ann_info']['gt_labels_3d']
    assert labels.tolist() == [-1]


def change(*keys, to=None, of='entry'):
    """A change of one field of an entry, or of the metainfo; it is removed by default."""

    def apply(entry, metainfo):
        *path, last = keys
        inner = dict(entry=entry, metainfo=metainfo)[of]
        for key in path:
            inner = inner[key]
        inner.pop(last) if to is None else inner.update({last: to})

    return apply


@pytest.mark.parametrize(
    ('wrong', 'line'),
    [
        (change('lidar_points'), 'lidar_points has no lidar_path; modality'),
        (change('images'), 'it has no images; modality'),
        (change('lidar_sweeps', to=[{}]), 'lidar_sweeps but no timestamp'),
        (change('images', 'left', 'cam2img'), 'camera left has no cam2img'),
        (change('images', 'left', 'lidar2cam', to=[1]), r'lidar2cam of camera left is \(1,\)'),
        (change('instances', to=[dict(bbox_3d=[1])]), 'bbox_3d of instance 0 has 1 numbers'),
        (change('categories', of='metainfo'), 'no categories; give the label'),
        (change('categories', to=dict(van=3), of='metainfo'), r'label 7; .* have \[-1, 3\]'),
        (change('point_columns', to=['x', 'y', 'z'], of='metainfo'), 'point_columns is'),
        (change('point_columns', to=['x', 'y', 'z', 'i'], of='metainfo'), 'point_columns is'),
    ],
)
def test_each_mistake_in_an_info_file_has_its_line(write, wrong, line):
    with pytest.raises(ValueError, match=line) as error:
        write(wrong)
    assert 'infos.pkl' in str(error.value)
    assert '\n' not in str(error.value)


def test_unknown_classes_are_refused(write):
    with pytest.raises(ValueError, match=r"no 'vans'; did you mean 'van'\? It has: crate, van"):
        write(metainfo=dict(classes=['vans']))


def test_a_version_that_contradicts_the_info_file_is_refused(synthetic_root):
    with pytest.raises(ValueError, match=r'is v1\.0-trainval, but info file .* is of v1\.0-mini'):
        make(synthetic_root, metainfo=dict(classes=CLASSES, version='v1.0-trainval'))


def test_an_empty_info_file_is_refused(write, tmp_path):
    with pytest.raises(ValueError, match='no samples'):
        write(indices=None, scenes=[])


def test_an_unknown_velocity_is_zero_in_training_and_unknown_in_a_test(write):
    velocities = [
        write(test_mode=test).get_data_info(0)[key]['gt_bboxes_3d'].tensor[0, 7:]
        for test, key in ((False, 'ann_info'), (True, 'eval_ann_info'))
    ]
    assert velocities[0].tolist() == [0, 0]
    assert velocities[1].isnan().all()
