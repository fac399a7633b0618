"""The official devkit reads and scores what the maker writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.loaders import add_center_dist, filter_eval_boxes, load_gt
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import NuScenesEval

from projects.cmt_aqr.data_preparation.synthetic import CLASSES, DatabaseSettings, make_database

NAMES = [kind.name for kind in CLASSES]


def scored_ground_truth(nusc: NuScenes, split: str):
    """The ground truth that the official evaluation scores."""
    boxes = add_center_dist(nusc, load_gt(nusc, split, DetectionBox))
    return filter_eval_boxes(nusc, boxes, config_factory('detection_cvpr_2019').class_range)


def score_ground_truth(root: Path, version: str, split: str, out: Path) -> tuple[dict, dict]:
    """Official metrics of the ground truth as predictions, and the scored boxes of every class."""
    nusc = NuScenes(version=version, dataroot=str(root), verbose=False)
    truth = scored_ground_truth(nusc, split)
    results, counts = {}, dict.fromkeys(NAMES, 0)
    for sample in truth.sample_tokens:
        results[sample] = [box.serialize() | dict(detection_score=1.0) for box in truth[sample]]
        for box in truth[sample]:
            counts[box.detection_name] += 1
    meta = {f'use_{name}': False for name in ('camera', 'radar', 'map', 'external')}
    file = out / 'results.json'
    content = dict(meta=meta | dict(use_lidar=True), results=results)
    file.write_text(json.dumps(content, default=np.ndarray.tolist))
    evaluation = NuScenesEval(
        nusc,
        config=config_factory('detection_cvpr_2019'),
        result_path=str(file),
        eval_set=split,
        output_dir=str(out),
        verbose=False,
    )
    return evaluation.main(render_curves=False), counts


@pytest.mark.slow
@pytest.mark.parametrize(
    ('settings', 'split', 'least'),
    [
        (DatabaseSettings(train_scenes=1, sweeps=0, image_size=(64, 36)), 'mini_val', 15),
        (
            DatabaseSettings(train_scenes=1, sweeps=0, image_size=(64, 36), world='streets'),
            'mini_val',
            1,
        ),
        (
            DatabaseSettings(
                version='v1.0-trainval',
                train_scenes=1,
                val_scenes=30,
                keyframes=10,
                sweeps=0,
                seed=1,
                image_size=(64, 36),
            ),
            'val',
            50,
        ),
    ],
    ids=['mini', 'streets', 'trainval'],
)
def test_ground_truth_scores_full_marks(settings, split, least, tmp_path):
    root = make_database(tmp_path / 'data', settings)
    metrics, counts = score_ground_truth(root, settings.version, split, tmp_path)
    assert min(counts.values()) >= least, counts
    assert metrics['mean_dist_aps'] == pytest.approx(dict.fromkeys(NAMES, 1.0))
    errors = np.array(list(metrics['tp_errors'].values()))
    assert errors == pytest.approx(np.zeros(5), abs=1e-6)
    assert metrics['nd_score'] == pytest.approx(1.0, abs=1e-6)
