"""The official score of the real frame's own boxes, through MMDetection3D's dataset and metric."""

import pytest
import torch
from mmdet3d.datasets import NuScenesDataset

from projects.cmt_aqr.datasets.single_frame import VERSION, make_frame_root
from projects.cmt_aqr.evaluation import PresentClassesMetric

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
