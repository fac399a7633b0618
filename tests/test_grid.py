"""Range and grid of a model from one place of its config, and contradictions."""

import pytest
from mmdet3d.registry import MODELS
from mmengine.config import Config

from projects.cmt_aqr.grid import fit_head, range_of

LIMITS = [-80.0, -80.0, -3.0, 80.0, 80.0, 5.0]


@pytest.fixture
def config(repo_root):
    """The tiny model, with a range of its own in the one place."""
    model = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py').model
    model.data_preprocessor.voxel_layer.update(point_cloud_range=LIMITS, voxel_size=[0.5, 0.5, 0.4])
    del model.pts_bbox_head.box_coder['post_center_range']
    return model


def test_all_follows_from_the_voxels(config):
    model = MODELS.build(config)
    assert list(model.pts_middle_encoder.sparse_shape) == [21, 320, 320]
    assert model.pts_bbox_head.point_cloud_range == range_of(config) == tuple(LIMITS)
    limits = model.pts_bbox_head.box_coder.post_center_range
    assert limits == (-85, -85, -8, 85, 85, 10)


@pytest.mark.parametrize(
    ('change', 'line'),
    [
        (
            {'pts_bbox_head.point_cloud_range': [-54.0, -54, -5, 54, 54, 3]},
            r'pts_bbox_head.point_cloud_range is \[-54.*voxel_layer is \[-80.*leave .* out',
        ),
        (
            {'pts_middle_encoder.sparse_shape': [41, 1024, 1024]},
            r'sparse_shape is \[41, 1024, 1024\], but .* make \[21, 320, 320\]; leave',
        ),
        (
            {'data_preprocessor.voxel_layer.voxel_size': [0.3, 0.5, 0.4]},
            r'has 533.333, 320, 20 voxels of \[0.3, 0.5, 0.4\] m .*; change either',
        ),
        (
            {'data_preprocessor.voxel_layer.voxel_size': [0.8, 0.5, 0.4]},
            'has 200 x 320 voxels .* need multiples of 16: change the range or the voxel_size',
        ),
        (
            {'data_preprocessor.voxel_layer.voxel_size': [0.5, 0.5, 0.2]},
            'in_channels is 64, but the range has 40 voxels along z, .* makes 128 channels',
        ),
        (
            {'pts_bbox_head.box_coder.post_center_range': [-61.2, -61.2, -10, 61.2, 61.2, 10]},
            r'post_center_range is \[-61.2.*removes boxes within the range .*: leave it out',
        ),
    ],
)
def test_contradictions_are_refused(config, change, line):
    changed = Config(dict(model=config))
    changed.merge_from_dict({f'model.{name}': value for name, value in change.items()})
    with pytest.raises(ValueError, match=line):
        MODELS.build(changed.model)


def test_a_declared_exception_is_allowed(config):
    config.crops_range = True
    config.pts_middle_encoder.sparse_shape = [21, 128, 128]
    model = MODELS.build(config)
    assert model.data_preprocessor.voxel_layer.sparse_shape == (21, 128, 128)


def test_without_lidar_the_head_has_the_range():
    head = dict(point_cloud_range=LIMITS, box_coder={})
    assert range_of(dict(data_preprocessor=None, pts_bbox_head=head)) == tuple(LIMITS)
    assert fit_head(head, LIMITS)['point_cloud_range'] == LIMITS
    with pytest.raises(ValueError, match='the model has no point_cloud_range: give it in'):
        range_of(dict(pts_bbox_head={}))
