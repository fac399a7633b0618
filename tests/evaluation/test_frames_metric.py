"""Scores of all frames against NuScenesMetric, and of some against the dev-kit on those alone."""

import numpy as np
import pytest
import torch
from mmdet3d.evaluation import NuScenesMetric
from nuscenes import NuScenes
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes

from projects.cmt_aqr.data_preparation.single_frame import VERSION, make_frame_root
from projects.cmt_aqr.datasets import CmtDataset
from projects.cmt_aqr.evaluation import FramesMetric
from projects.cmt_aqr.evaluation.match_scores import score
from projects.cmt_aqr.evaluation.official import OfficialScorer
from projects.cmt_aqr.evaluation.predictions import Predictions

CLASSES = [*config_factory('detection_cvpr_2019').class_names]
INFOS = 'nuscenes_infos_val.pkl'


@pytest.fixture(scope='module')
def evaluate(synthetic_root):
    """A function that scores shaken true boxes by a metric: its scores without their prefix."""

    def evaluate(
        metric, most=None, root=synthetic_root, ann_file=INFOS, classes=CLASSES, **options
    ):
        dataset = CmtDataset(
            data_root=str(root),
            ann_file=ann_file,
            pipeline=[],
            metainfo=dict(classes=classes, version=VERSION),
            **options,
        )
        metric.dataset_meta = dataset.metainfo
        for index in range(len(dataset)):
            metric.process({}, [_prediction(dataset, index, most)])
        scores = metric.evaluate(len(dataset))
        return {name.rsplit('/', 1)[-1]: value for name, value in scores.items()}

    return evaluate


def _prediction(dataset, index, most):
    """The true boxes of a frame, at most so many, each moved by its own small random step."""
    truth = dataset.parse_ann_info(dataset.get_data_info(index))
    known = truth['gt_labels_3d'] >= 0
    boxes = truth['gt_bboxes_3d'][known].clone()
    rng = np.random.default_rng(len(boxes.tensor))
    boxes.tensor[:, :7] += torch.as_tensor(rng.normal(0, 0.5, (len(boxes.tensor), 7)))
    boxes.tensor[:, 3:6] = boxes.tensor[:, 3:6].clamp(min=0.2)
    boxes.tensor[:, 7:] = 0.1
    prediction = dict(
        bboxes_3d=boxes[:most],
        labels_3d=torch.as_tensor(truth['gt_labels_3d'][known])[:most],
        scores_3d=torch.as_tensor(rng.random(len(boxes.tensor)))[:most],
    )
    token = dataset.get_data_info(index)['token']
    return dict(pred_instances_3d=prediction, pred_instances={}, sample_idx=index, token=token)


def test_all_frames_score_as_by_mmdetection3d(evaluate, synthetic_root):
    theirs = NuScenesMetric(str(synthetic_root), str(synthetic_root / INFOS))
    ours, theirs = evaluate(FramesMetric()), evaluate(theirs)
    assert 0.05 < ours['mAP'] < 0.9
    assert ours['mAP'] == pytest.approx(theirs['mAP'], abs=1e-9)
    assert ours['NDS'] == pytest.approx(theirs['NDS'], abs=1e-9)
    for name in ('mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE'):
        assert ours[name] == pytest.approx(theirs[name], abs=1e-4)  # which it rounds
    assert {*theirs} < {*ours}
    assert ours['car_AP_dist_2.0'] == pytest.approx(theirs['car_AP_dist_2.0'], abs=1e-4)


def test_some_frames_are_scored_against_their_own_truth(evaluate):
    """The same boxes, resampled: the frames in once, and not at all."""
    every = FramesMetric()
    evaluate(every)
    some = FramesMetric()
    scores = evaluate(some, indices=[1, 4])
    counts = np.zeros(len(every.scored.matches.tokens), dtype=int)
    counts[[1, 4]] = 1
    expected = score(every.scored.matches, some.eval_detection_configs, counts)
    assert scores['mAP'] == pytest.approx(expected.mean_ap, abs=1e-9)
    assert scores['NDS'] == pytest.approx(expected.nds, abs=1e-9)
    assert [*some.scored.matches.tokens] == [*every.scored.matches.tokens[[1, 4]]]


def test_what_is_kept_gives_the_same_scores(evaluate, synthetic_root, tmp_path):
    """From the matches to 1e-6, and from the predictions on disk, filtered and matched anew."""
    kept = FramesMetric()
    scores = evaluate(kept)
    config = kept.eval_detection_configs
    from_matches = score(kept.scored.matches, config)
    assert from_matches.mean_ap == pytest.approx(scores['mAP'], abs=1e-6)
    assert from_matches.nds == pytest.approx(scores['NDS'], abs=1e-6)

    kept.scored.predictions.save(tmp_path / 'predictions.npz')
    boxes = Predictions.load(tmp_path / 'predictions.npz').boxes()
    nusc = NuScenes(VERSION, str(synthetic_root), verbose=False)
    again, _ = OfficialScorer(nusc, boxes.sample_tokens, config).score(boxes)
    assert again.mean_ap == pytest.approx(scores['mAP'], abs=1e-6)
    assert again.nd_score == pytest.approx(scores['NDS'], abs=1e-6)


def test_the_training_split_is_scored_like_any_other(evaluate):
    train = FramesMetric()
    scores = evaluate(train, ann_file='nuscenes_infos_train.pkl')
    assert 0.05 < scores['mAP'] < 0.9
    assert len(train.scored.matches.tokens) == 6


def test_a_model_of_one_class_is_scored_by_that_class(evaluate, caplog):
    every, one = evaluate(FramesMetric()), evaluate(FramesMetric(), classes=['car'])
    assert one['mAP'] == one['car_AP'] == pytest.approx(every['car_AP'], abs=0.15)
    assert one['mAP'] > 2 * every['car_AP'] / 10
    assert {name for name in one if name.endswith('_AP')} == {'car_AP'}


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (dict(ann_file='nuscenes_infos_train.pkl'), 'is not in .*_train.pkl, which must be the'),
        (dict(data_root='elsewhere'), 'data root .*elsewhere does not exist'),
    ],
)
def test_contradictions_are_found_in_the_first_batch(evaluate, synthetic_root, options, line):
    if 'ann_file' in options:
        options = dict(ann_file=str(synthetic_root / options['ann_file']))
    metric = FramesMetric(**options)
    with pytest.raises((ValueError, FileNotFoundError), match=line):
        evaluate(metric)
    assert not metric.results


def test_a_split_without_annotations_is_refused_before_it_is_computed(synthetic_root, tmp_path):
    (tmp_path / VERSION).mkdir()
    for table in (synthetic_root / VERSION).iterdir():
        if table.name != 'sample_annotation.json':
            (tmp_path / VERSION / table.name).symlink_to(table)
    (tmp_path / VERSION / 'sample_annotation.json').write_text('[]')
    metric = FramesMetric(data_root=str(tmp_path), ann_file=str(synthetic_root / INFOS))
    metric.dataset_meta = dict(classes=['car'], version=VERSION)
    with pytest.raises(ValueError, match=r'has no annotations, .* --submission FOLDER'):
        metric.process({}, [dict(token=next(iter(metric._infos)))])


def test_classes_that_nuscenes_lacks_need_another_metric(synthetic_root):
    metric = FramesMetric(data_root=str(synthetic_root), ann_file=str(synthetic_root / INFOS))
    metric.dataset_meta = dict(classes=['crate'], version=VERSION)
    token = next(iter(metric._infos))
    with pytest.raises(ValueError, match=r"no classes \['crate'\]; .*type='DetectionMetric'"):
        metric.process({}, [dict(token=token)])


def test_the_mean_over_present_classes_leaves_out_those_without_a_box(
    evaluate, real_frame, tmp_path
):
    """The real frame has scored boxes of five classes."""
    root = make_frame_root(real_frame, tmp_path / 'root')
    scores = evaluate(FramesMetric(), root=root)
    present = ('car', 'truck', 'barrier', 'pedestrian', 'traffic_cone')
    aps = [scores[f'{name}_AP'] for name in present]
    assert scores['mAP_present'] == pytest.approx(np.mean(aps))
    assert scores['mAP'] == pytest.approx(np.sum(aps) / 10)


def test_a_model_that_finds_nothing_scores_zero(evaluate):
    blind = FramesMetric()
    scores = evaluate(blind, most=0)
    assert (scores['mAP'], scores['NDS']) == (0, 0)
    assert len(blind.scored.predictions.score) == 0
    assert len(blind.scored.matches.tokens) == 6


def test_boxes_of_other_samples_are_refused(synthetic_root):
    nusc = NuScenes(VERSION, str(synthetic_root), verbose=False)
    one, two = (sample['token'] for sample in nusc.sample[:2])
    boxes = EvalBoxes()
    boxes.add_boxes(two, [])
    with pytest.raises(ValueError, match='not the same'):
        OfficialScorer(nusc, [one], config_factory('detection_cvpr_2019')).score(boxes)
