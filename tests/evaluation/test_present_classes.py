"""The official score of the real frame's own boxes, through MMDetection3D's dataset and metric."""

import numpy as np
import pytest
import torch
from mmdet3d.datasets import NuScenesDataset
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.detection.utils import category_to_detection_name

from projects.cmt_aqr.data_preparation.single_frame import VERSION, make_frame_root
from projects.cmt_aqr.evaluation import PresentClassesMetric
from projects.cmt_aqr.evaluation.present_classes import scored_classes

CLASSES = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
    'pedestrian', 'traffic_cone',
]  # fmt: skip
PRESENT = {'car', 'truck', 'barrier', 'pedestrian', 'traffic_cone'}


@pytest.fixture(scope='module')
def score(real_frame, tmp_path_factory):
    """A function from a change of the ground truth's boxes to the scores of the changed boxes."""
    root = make_frame_root(real_frame, tmp_path_factory.mktemp('frame') / 'root')
    dataset = NuScenesDataset(
        data_root=str(root),
        ann_file='nuscenes_infos_val.pkl',
        pipeline=[],
        metainfo={'classes': CLASSES, 'version': VERSION},
        box_type_3d='LiDAR',
        lazy_init=False,
    )
    truth = dataset.parse_ann_info(dataset.get_data_info(0))
    known = truth['gt_labels_3d'] >= 0

    def run(change=lambda boxes: None):
        boxes = truth['gt_bboxes_3d'][known].clone()
        change(boxes)
        metric = PresentClassesMetric(
            data_root=str(root), ann_file=str(root / 'nuscenes_infos_val.pkl')
        )
        metric.dataset_meta = dataset.metainfo
        labels = torch.as_tensor(truth['gt_labels_3d'][known])
        prediction = {'bboxes_3d': boxes, 'labels_3d': labels, 'scores_3d': torch.ones(len(labels))}
        sample = {'pred_instances_3d': prediction, 'pred_instances': {}, 'sample_idx': 0}
        metric.process({}, [sample])
        scores = metric.evaluate(1)
        return {key.rsplit('/', 1)[-1]: value for key, value in scores.items()}

    return run


def test_the_truth_scores_one_in_every_class_that_is_there(score):
    scores = score()
    for name in PRESENT:
        assert scores[f'{name}_AP'] == pytest.approx(1.0)
    assert scores['mAP_present'] == pytest.approx(1.0)
    assert {key[:-3] for key in scores if key.endswith('_AP')} == PRESENT


def test_boxes_in_the_wrong_place_score_nothing(score):
    def move(boxes):
        boxes.tensor[:, :2] += 30

    assert score(move)['mAP_present'] < 0.1


def test_scored_are_boxes_with_points_in_the_range_of_their_class(synthetic_root):
    """Counted by hand in the tables: nearer than the class's distance, with a point inside."""
    nusc = NuScenes(version=VERSION, dataroot=str(synthetic_root), verbose=False)
    config = config_factory('detection_cvpr_2019')
    expected = set()
    for annotation in nusc.sample_annotation:
        sample = nusc.get('sample', annotation['sample_token'])
        if nusc.get('scene', sample['scene_token'])['name'] not in ('scene-0103', 'scene-0916'):
            continue
        lidar = nusc.get('sample_data', sample['data']['LIDAR_TOP'])
        ego = nusc.get('ego_pose', lidar['ego_pose_token'])['translation']
        distance = np.linalg.norm(np.subtract(annotation['translation'], ego)[:2])
        name = category_to_detection_name(annotation['category_name'])
        if name and distance < config.class_range[name] and annotation['num_lidar_pts']:
            expected.add(name)
    assert scored_classes(nusc, 'mini_val', config) == expected
    assert expected

    for annotation in nusc.sample_annotation:
        if category_to_detection_name(annotation['category_name']) == 'car':
            annotation['num_lidar_pts'] = 0
    assert 'car' in expected
    assert scored_classes(nusc, 'mini_val', config) == expected - {'car'}
