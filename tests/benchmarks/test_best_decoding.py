"""The choice of a decoding for each query by the annotations."""

from pathlib import Path

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import init_default_scope

from benchmarks.routing.best_decoding import gains

CONFIG = Path('benchmarks/routing/cmt_tiny_streets_best_decoding.py')


def annotated(*centres, labels):
    boxes = torch.zeros(len(centres), 9)
    boxes[:, :2] = torch.tensor(centres).reshape(-1, 2)
    boxes[:, 3:6] = 1
    sample = Det3DDataSample()
    sample.eval_ann_info = dict(
        gt_bboxes_3d=LiDARInstance3DBoxes(boxes, box_dim=9), gt_labels_3d=torch.tensor(labels)
    )
    return sample


def gain(position, scores, sample):
    boxes = torch.zeros(1, 1, 1, 9)
    boxes[..., :2] = torch.tensor(position)
    return gains(boxes, torch.tensor(scores).logit().expand(1, 1, 1, -1), [sample]).item()


@pytest.mark.parametrize(
    ('position', 'scores', 'expected'),
    [
        ((10.0, 0.4), (0.8, 0.3), 0.8),  # within all four distances
        ((10.0, 1.5), (0.8, 0.3), 0.4),  # within two
        ((10.0, 9.0), (0.8, 0.3), -0.8),  # nothing there
        ((10.0, 0.0), (0.1, 0.9), 0.1),  # another class
        ((-5.0, 0.0), (0.9, 0.1), -0.9),  # an object of no class
    ],
)
def test_gain_of_a_query(position, scores, expected):
    sample = annotated((10.0, 0.0), (-5.0, 0.0), labels=[0, -1])
    assert gain(position, scores, sample) == pytest.approx(expected)


def test_without_objects_any_score_is_a_loss():
    empty = annotated(labels=[])
    assert gain((0.0, 0.0), (0.2, 0.6), empty) == pytest.approx(-0.6)


@pytest.fixture(scope='module')
def detector(repo_root):
    init_default_scope('mmdet3d')
    cfg = Config.fromfile(repo_root / CONFIG)
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


@pytest.mark.parametrize('inputs', [('points', 'img'), ('points',)])
def test_each_query_is_that_of_one_decoding(detector, inputs):
    """A box of the class that one decoding favours most makes its query be chosen."""
    detector.pts_bbox_head.box_coder.max_num = detector.pts_bbox_head.num_query * 10
    matrix = torch.tensor([[88.0, -100, 0, 0], [32, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    sample = annotated(labels=[])
    sample.set_metainfo(
        dict(lidar2img=matrix.expand(2, 4, 4).numpy(), box_type_3d=LiDARInstance3DBoxes)
    )
    data = dict(
        points=[torch.rand(400, 5) * torch.tensor([20.0, 20, 2, 255, 0.5])],
        img=[torch.randint(0, 255, (2, 3, 96, 256), dtype=torch.uint8)],
    )
    data = dict(inputs={name: data[name] for name in inputs}, data_samples=[sample])
    batch = detector.data_preprocessor(data, False)
    metas = [batch['data_samples'][0].metainfo]
    with torch.no_grad():
        features = detector.extract_feat(batch['inputs'])
        detector.pts_bbox_head.training = True
        output = detector.pts_bbox_head(*features, metas, all_layers=False)
        detector.pts_bbox_head.training = False
        found = detector(**batch, mode='predict')[0].pred_instances_3d.scores_3d
    decodings = [output.tasks, *output.alone.values()]
    assert len(decodings) == (3 if 'img' in inputs else 1)
    # Without objects, each query takes the decoding whose highest score is lowest.
    scores = torch.stack([tasks[0]['cls_logits'][-1, 0].sigmoid() for tasks in decodings])
    expected = scores.gather(0, scores.amax(-1).argmin(0)[None, :, None].expand(1, -1, 10))[0]
    torch.testing.assert_close(found, expected.flatten().sort(descending=True).values)
