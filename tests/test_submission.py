"""Results for nuScenes' test server: of the split without annotations, with what made them."""

import json
from pathlib import Path

import pytest
import torch
from mmdet3d.registry import DATASETS, METRICS
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.fileio import dump, load

from projects.cmt_aqr.cli.arguments import check_data
from projects.cmt_aqr.cli.config_changes import format_submission
from projects.cmt_aqr.usage_error import UsageError

BOX = [3.0, 10.0, -1.0, 4.0, 2.0, 1.5, 0.3, 1.0, 0.0]


@pytest.fixture
def cfg(repo_root: Path, synthetic_root: Path, tmp_path: Path) -> Config:
    """The tiny fusion model's config, on the validation split without its annotations."""
    infos = load(synthetic_root / 'nuscenes_infos_val.pkl')
    infos['metainfo']['version'] = 'v1.0-test'
    for info in infos['data_list']:
        del info['instances']
    dump(infos, tmp_path / 'nuscenes_infos_test.pkl')
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    cfg.test_dataloader.dataset.data_root = str(tmp_path)
    return cfg


def test_every_frame_has_its_boxes_and_the_sensors_are_declared(cfg, tmp_path):
    format_submission(cfg, str(tmp_path / 'out'))
    check_data(cfg, 'test_dataloader')
    dataset = cfg.test_dataloader.dataset
    dataset.pipeline = []
    frames = DATASETS.build(dataset)
    assert frames.metainfo['version'] == 'v1.0-test'

    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = frames.metainfo
    for index in range(len(frames)):
        boxes = LiDARInstance3DBoxes(torch.tensor([BOX]), box_dim=9)
        scores, labels = torch.tensor([0.7]), torch.tensor([8])
        found = dict(bboxes_3d=boxes, scores_3d=scores, labels_3d=labels)
        sample_idx = frames[index]['sample_idx']
        metric.process(
            {}, [dict(pred_instances_3d=found, pred_instances={}, sample_idx=sample_idx)]
        )
    assert metric.evaluate(len(frames)) == {}

    submission = json.loads((tmp_path / 'out/pred_instances_3d/results_nusc.json').read_text())
    assert submission['meta'] == dict(
        use_camera=True, use_lidar=True, use_radar=False, use_map=False, use_external=False
    )
    tokens = {frame['token'] for frame in load(tmp_path / 'nuscenes_infos_test.pkl')['data_list']}
    assert submission['results'].keys() == tokens
    for token, boxes in submission['results'].items():
        (box,) = boxes
        assert box['sample_token'] == token
        assert box['detection_name'] == 'pedestrian'
        assert box['size'] == pytest.approx([2.0, 4.0, 1.5])
        assert box['detection_score'] == pytest.approx(0.7)


def test_a_missing_test_split_is_named_with_the_command_that_makes_it(cfg, tmp_path):
    (tmp_path / 'nuscenes_infos_test.pkl').unlink()
    format_submission(cfg, 'out')
    with pytest.raises(UsageError, match=r'infos_test\.pkl, which .* --version v1\.0-test$'):
        check_data(cfg, 'test_dataloader')
