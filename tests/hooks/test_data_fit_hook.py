"""Data that do not fit the model are refused before the first step."""

from types import SimpleNamespace

import pytest
from mmdet3d.datasets.transforms import ObjectNameFilter, PointsRangeFilter
from mmengine.dataset import Compose
from mmengine.runner import TestLoop
from torch import nn

from projects.cmt_aqr.datasets.failures import PackHealth
from projects.cmt_aqr.hooks import DataFitHook

RANGE = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
NARROW = [-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]
CLASSES = ['van', 'crate']


def check(*steps, classes=CLASSES, wrapped=False):
    """Starts a test of a model with two classes on a dataset with these transforms."""
    dataset = SimpleNamespace(metainfo=dict(classes=classes), pipeline=Compose([]))
    dataset.pipeline.transforms = list(steps)
    if wrapped:
        dataset = SimpleNamespace(metainfo=dataset.metainfo, dataset=dataset)
    model = nn.Module()
    model.pts_bbox_head = nn.Module()
    model.pts_bbox_head.class_names = tuple(CLASSES)
    model.pts_bbox_head.point_cloud_range = tuple(RANGE)
    loop = TestLoop.__new__(TestLoop)
    loop.dataloader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(model=model, _test_loop=loop, _train_loop=dict(type='NotBuilt'))
    DataFitHook().before_run(runner)


def test_data_that_fit_pass():
    check(PointsRangeFilter(RANGE), ObjectNameFilter(CLASSES), wrapped=True)


@pytest.mark.parametrize('classes', [['crate', 'van'], ['van'], ['van', 'box']])
def test_other_classes_or_another_order_are_refused(classes):
    with pytest.raises(ValueError, match=r'test_dataloader: the dataset has the classes .* same'):
        check(classes=classes)


@pytest.mark.parametrize('wrapped', [False, True])
@pytest.mark.parametrize(
    'step',
    [
        PointsRangeFilter(NARROW),
        PackHealth(
            keys=['points'], meta_keys=(), point_cloud_range=NARROW, voxel_size=[0.1] * 3,
            bev_stride=8, image_stride=8,
        ),
    ],
)  # fmt: skip
def test_another_range_is_refused(step, wrapped):
    with pytest.raises(ValueError, match=r'has the range \[-51.2.*the model has \[-54'):
        check(step, wrapped=wrapped)


def test_transforms_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"ObjectNameFilter has the classes \['van'\]"):
        check(ObjectNameFilter(['van']))


def test_a_head_without_a_range_of_its_own_is_left_alone():
    model = nn.Module()
    model.pts_bbox_head = nn.Module()
    model.pts_bbox_head.class_names = [['van'], ['crate']]  # as CenterHead has them
    DataFitHook().before_run(SimpleNamespace(model=model))
