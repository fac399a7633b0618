"""Objects of classes that are annotated and not detected have the label -1, which indexes nothing.

As an index it would name the last class. The synthetic database of the tests has such objects, and
every other test that reads it has them too; here stands where they must show and where not.
"""

from pathlib import Path

import numpy as np
import pytest
from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.fileio import load
from nuscenes import NuScenes
from nuscenes.eval.common.loaders import load_gt
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.utils import category_to_detection_name

from projects.cmt_aqr.datasets.failures import DrawIndex, ObjectFailure
from projects.cmt_aqr.hooks.pipelines import transforms_of
from projects.cmt_aqr.visualization.scene_boxes import OTHER, sample_boxes, scene_boxes

IGNORED = {'animal', 'movable_object.debris', 'static_object.bicycle_rack'}


@pytest.fixture(scope='module')
def nusc(synthetic_root) -> NuScenes:
    return NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)


@pytest.fixture
def tiny(synthetic_root, repo_root) -> Config:
    """The tiny model's config on the database of the tests."""
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(synthetic_root)
    return cfg


def test_both_sensors_see_them(nusc):
    found = [a for a in nusc.sample_annotation if a['category_name'] in IGNORED]
    assert {a['category_name'] for a in found} == IGNORED
    seen = [a for a in found if a['num_lidar_pts'] > 0 and int(a['visibility_token']) > 1]
    assert len(seen) > len(found) / 2


def test_info_files_label_them_minus_one(synthetic_root, nusc):
    content = load(synthetic_root / 'nuscenes_infos_train.pkl')
    labels = content['metainfo']['categories']
    assert {name for name, label in labels.items() if label == -1} == IGNORED
    for info in content['data_list']:
        names = [
            nusc.get('sample_annotation', t)['category_name'] for t in _annotations(nusc, info)
        ]
        expected = [category_to_detection_name(name) for name in names]
        assert [i['bbox_label_3d'] for i in info['instances']] == [
            -1 if name is None else labels[name] for name in expected
        ]


def _annotations(nusc: NuScenes, info: dict) -> list[str]:
    return nusc.get('sample', info['token'])['anns']


def test_training_has_no_label_for_them(tiny):
    dataset = DATASETS.build(tiny.train_dataloader.dataset)
    before = np.concatenate([dataset.get_ann_info(i)['gt_labels_3d'] for i in range(6)])
    assert -1 in before
    (draw_index,) = transforms_of(dataset, DrawIndex)
    draw_index.set_epoch(0)
    for index in range(6):
        labels = dataset[index]['data_samples'].gt_instances_3d.labels_3d
        assert labels.min() >= 0
        assert labels.max() < 10


def test_every_pipeline_that_reads_boxes_filters_them(repo_root):
    """Whatever stands between loading and filtering has to cope with the label -1."""
    checked = 0
    for file in sorted(Path(repo_root, 'configs').glob('*/*.py')):
        dataset = Config.fromfile(file).get('train_dataloader', {}).get('dataset', {})
        while 'dataset' in dataset:
            dataset = dataset.dataset
        steps = [step.type for step in dataset.get('pipeline', ())]
        if 'LoadAnnotations3D' in steps:
            between = steps[steps.index('LoadAnnotations3D') + 1 : steps.index('ObjectNameFilter')]
            assert set(between) <= {
                'JointObjectSample',
                'GlobalRotScaleTransAll',
                'RandomFlip3DAll',
                'PointsRangeFilter',
                'ObjectRangeFilter',
            }, file
            checked += 1
    assert checked > 20


def test_an_object_failure_takes_them_too(tiny):
    dataset = DATASETS.build(tiny.val_dataloader.dataset)
    info = dataset.get_data_info(0)
    drawn = ObjectFailure(severity=1).draw(info, np.random.default_rng(2))
    ignored = info['eval_ann_info']['gt_labels_3d'] == -1
    assert ignored.any()
    assert len(drawn.boxes) == len(ignored)


def test_pictures_name_them_other_or_leave_them_out(tiny, nusc):
    dataset = DATASETS.build(tiny.val_dataloader.dataset)
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        sample = nusc.get('sample', info['token'])
        boxes = sample_boxes(nusc, sample['data']['LIDAR_TOP'])
        names = [nusc.get('sample_annotation', token)['category_name'] for token in sample['anns']]
        assert [box.name == OTHER for box in boxes] == [name in IGNORED for name in names]
        points = [nusc.get('sample_annotation', t)['num_lidar_pts'] for t in sample['anns']]
        kept = [box.name for box, n in zip(boxes, points, strict=True) if box.name != OTHER and n]
        annotated = info['eval_ann_info']
        drawn = scene_boxes(
            annotated['gt_bboxes_3d'], annotated['gt_labels_3d'], dataset.metainfo['classes']
        )
        assert [box.name for box in drawn] == kept


def test_they_are_no_ground_truth(nusc):
    truth = load_gt(nusc, 'mini_val', DetectionBox)
    tokens = [t for sample in truth.sample_tokens for t in nusc.get('sample', sample)['anns']]
    names = [nusc.get('sample_annotation', token)['category_name'] for token in tokens]
    assert len(truth.all) == sum(name not in IGNORED for name in names) < len(names)
