"""The head against the numbers of the public CMT, and on input that the public code fails on."""

import importlib.util

import numpy as np
import pytest
import torch
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.cmt_aqr.head import CmtHead

RANGE = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
CLASSES = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
    'pedestrian', 'traffic_cone',
]  # fmt: skip
CODE_WEIGHTS = [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2]


def head_config(**changes):
    """The small head of the reference."""
    config = {
        'point_cloud_range': RANGE,
        'tasks': [CLASSES],
        'in_channels': 48,
        'hidden_dim': 32,
        'num_query': 24,
        'depth_num': 64,
        'transformer': {'num_layers': 2, 'num_heads': 4, 'feedforward_channels': 64},
        'box_coder': {
            'type': 'BoxCoder',
            'layout': 'released',
            'post_center_range': [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            'max_num': 20,
        },
        'assigner': {
            'type': 'mmdet.HungarianAssigner',
            'match_costs': [
                {'type': 'mmdet.FocalLossCost', 'weight': 2.0},
                {'type': 'mmdet3d.BBox3DL1Cost', 'weight': 0.25, 'code_weights': CODE_WEIGHTS[:8]},
            ],
        },
        'loss_cls': {'type': 'mmdet.FocalLoss', 'loss_weight': 2.0},
        'loss_bbox': {'type': 'mmdet.L1Loss', 'loss_weight': 0.25},
        'code_weights': CODE_WEIGHTS,
        'denoising': {},
    }
    return {**config, **changes}


def make_head(**changes):
    torch.manual_seed(0)
    return CmtHead(**head_config(**changes))


@pytest.fixture
def reference_head(reference):
    spec = importlib.util.spec_from_file_location('fill', reference / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    head = make_head()
    fill.fill_state_dict(head, 7)
    return head.eval()


@pytest.fixture
def numbers(reference):
    return dict(np.load(reference / 'cmt_head_small.npz'))


def inputs_of(numbers):
    bev = torch.from_numpy(numbers['x'])
    images = torch.from_numpy(numbers['x_img']).unflatten(0, (len(bev), -1))
    metas = [
        {
            'lidar2img': matrices,
            'pad_shape': tuple(numbers['pad_shape']),
            'box_type_3d': LiDARInstance3DBoxes,
        }
        for matrices in numbers['lidar2img']
    ]
    return bev, images, metas


def samples_of(metas, boxes, labels):
    samples = []
    for meta, box, label in zip(metas, boxes, labels, strict=True):
        sample = Det3DDataSample(metainfo=meta)
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(box, box_dim=9), labels_3d=label
        )
        samples.append(sample)
    return samples


def reference_samples(numbers, metas):
    boxes = [torch.from_numpy(numbers[f'gt_box{i}']) for i in range(len(metas))]
    labels = [torch.from_numpy(numbers[f'gt_label{i}']) for i in range(len(metas))]
    return samples_of(metas, boxes, labels)


def random_batch(head, boxes=(3, 2), views=2):
    """Features and samples of a batch with a number of boxes each."""
    generator = torch.Generator().manual_seed(1)
    bev = torch.randn(len(boxes), 48, 8, 8, generator=generator)
    images = torch.randn(len(boxes), views, 32, 4, 6, generator=generator)
    camera = np.array([[50, 0, 0, 0], [48, 32, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    camera = np.array([[48, -50, 0, 0], [32, 0, -50, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    metas = [
        {
            'lidar2img': np.stack([camera] * views),
            'pad_shape': (64, 96),
            'box_type_3d': LiDARInstance3DBoxes,
        }
        for _ in boxes
    ]
    low, high = (
        torch.tensor([-40.0, -40, -1, 1, 1, 1, -3, 0, 0]),
        torch.tensor([40.0, 40, 1, 4, 4, 2, 3, 1, 1]),
    )
    truth = [low + torch.rand(n, 9, generator=generator) * (high - low) for n in boxes]
    labels = [torch.randint(0, head.num_classes, (n,), generator=generator) for n in boxes]
    return bev, images, samples_of(metas, truth, labels)


def test_outputs_equal_the_reference(reference_head, numbers):
    (outputs,) = reference_head(*inputs_of(numbers))
    for name, value in outputs.items():
        expected = torch.from_numpy(numbers[f'task0.{name}'])
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4, msg=name)


def test_decoded_boxes_equal_the_reference(reference_head, numbers):
    bev, images, metas = inputs_of(numbers)
    results = reference_head.predict(bev, images, reference_samples(numbers, metas))
    for i, result in enumerate(results):
        torch.testing.assert_close(
            result.bboxes_3d.tensor, torch.from_numpy(numbers[f'box{i}']), atol=1e-3, rtol=1e-4
        )
        torch.testing.assert_close(result.scores_3d, torch.from_numpy(numbers[f'score{i}']))
        assert result.labels_3d.tolist() == numbers[f'label{i}'].tolist()


def test_losses_and_gradients_equal_the_reference(reference_head, numbers, monkeypatch):
    def noise(like):
        return (torch.arange(like.numel()) * 0.37 % 1).reshape(like.shape).to(like)

    monkeypatch.setattr(torch, 'rand_like', noise)
    bev, images, metas = inputs_of(numbers)
    losses = reference_head.loss(bev, images, reference_samples(numbers, metas))
    expected = {k[len('loss.') :]: v for k, v in numbers.items() if k.startswith('loss.')}
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-3), name
    sum(losses.values()).backward()
    parameters = dict(reference_head.named_parameters())
    gradients = [k for k in numbers if k.startswith('grad.')]
    assert len(gradients) == 4
    for key in gradients:
        grad, target = parameters[key[len('grad.') :]].grad, torch.from_numpy(numbers[key])
        assert (grad - target).norm() <= 1e-3 * target.norm(), key
