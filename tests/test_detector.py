"""The detector built from the tiny config, on inputs whole, empty and missing."""

import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from projects.cmt_aqr.detector import CmtDetector, bev_shape


@pytest.fixture(scope='module')
def model_config(repo_root):
    init_default_scope('mmdet3d')
    return Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py').model


@pytest.fixture
def detector(model_config):
    torch.manual_seed(0)
    return MODELS.build(model_config)


def cloud(points=800):
    limits = torch.tensor([25.0, 25.0, 2.5, 255.0, 0.5])
    return (torch.rand(points, 5) * 2 - 1) * limits


def sample(boxes=2, views=2):
    looks_along_x = torch.tensor(
        [[88.0, -100, 0, 0], [32, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64
    )
    item = Det3DDataSample(
        metainfo={
            'lidar2img': torch.stack([looks_along_x] * views).numpy(),
            'box_type_3d': LiDARInstance3DBoxes,
        }
    )
    truth = torch.rand(boxes, 9) * torch.tensor([10.0, 10, 1, 3, 2, 1, 3, 1, 1]) + 0.5
    item.gt_instances_3d = InstanceData(
        bboxes_3d=LiDARInstance3DBoxes(truth, box_dim=9), labels_3d=torch.arange(boxes)
    )
    return item


def batch(points, boxes=(2, 1), views=(2, 2), images=True):
    inputs = {'points': points}
    if images:
        inputs['img'] = [torch.randint(0, 255, (v, 3, 64, 176), dtype=torch.uint8) for v in views]
    samples = [sample(n, v) for n, v in zip(boxes, views, strict=True)]
    return {'inputs': inputs, 'data_samples': samples}


def losses_of(detector, data):
    detector.train()
    data = detector.data_preprocessor(data, training=True)
    return detector(**data, mode='loss')


def test_every_parameter_learns(detector):
    losses = losses_of(detector, batch([cloud(), cloud()]))
    sum(losses.values()).backward()
    assert {n for n, p in detector.named_parameters() if p.grad is None} == set()


@pytest.mark.parametrize(
    'options',
    [
        {'points': [cloud(), cloud(0)]},
        {'points': [cloud(0), cloud(0)]},
        {'points': [cloud(), torch.full((5, 5), torch.nan)]},
        {'points': [cloud(), cloud()], 'boxes': (0, 0)},
        {'points': [cloud(), cloud()], 'views': (2, 1)},
        {'points': [cloud(), cloud()], 'images': False},
    ],
    ids=['one cloud empty', 'all clouds empty', 'NaN points', 'no boxes', 'fewer cameras', 'blind'],
)
def test_damaged_input_trains_and_predicts(detector, options):
    losses = losses_of(detector, batch(**options))
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    # Distributed training waits for every gradient, also of a branch without input.
    assert {n for n, p in detector.named_parameters() if p.grad is None} == set()

    detector.eval()
    data = detector.data_preprocessor(batch(**options))
    with torch.no_grad():
        results = detector(**data, mode='predict')
    assert all(torch.isfinite(r.pred_instances_3d.bboxes_3d.tensor).all() for r in results)


def test_log_holds_floats_and_the_sum(detector):
    """MMEngine reads every tensor that it logs by itself."""
    losses = losses_of(detector, batch([cloud(), cloud()]))
    loss, log = detector.parse_losses(losses)
    assert [*log] == ['loss', *losses]
    assert log == {'loss': loss.item()} | {name: value.item() for name, value in losses.items()}


def test_an_empty_sample_does_not_depend_on_its_neighbour(detector):
    """The map of a cloud without points is the same whether the other cloud has some or not."""
    detector.eval()
    mixed = detector.data_preprocessor(batch([cloud(), cloud(0)]))['inputs']
    empty = detector.data_preprocessor(batch([cloud(0), cloud(0)]))['inputs']
    with torch.no_grad():
        mixed_map, empty_map = (detector.extract_pts_feat(inputs) for inputs in (mixed, empty))
    torch.testing.assert_close(mixed_map[1], empty_map[1])


def test_voxels_outside_of_a_grid_declared_too_small_are_as_none(model_config):
    """Also beside voxels inside it, whose neighbours they would else become."""
    config = model_config.copy()
    config.pts_middle_encoder = {**config.pts_middle_encoder, 'sparse_shape': [21, 128, 128]}
    config.crops_range = True
    detector = MODELS.build(config).eval()
    inside, far = cloud(), cloud()
    inside[:, :2] = -inside[:, :2].abs()
    far[:, :2] = far[:, :2].abs() / 2 + 12.5  # beyond the first half of the range
    for points, expected in ((far, cloud(0)), (torch.cat([inside, far]), inside)):
        inputs = [
            detector.data_preprocessor(batch([x, cloud(0)]))['inputs'] for x in (points, expected)
        ]
        assert len(inputs[0]['voxels']['coors']) == len(inputs[1]['voxels']['coors'])
        with torch.no_grad():
            maps = [detector.extract_pts_feat(x) for x in inputs]
        assert torch.equal(*maps)


def test_the_voxelizer_has_the_grid_of_the_encoder(detector):
    encoder = detector.pts_middle_encoder
    assert detector.data_preprocessor.voxel_layer.sparse_shape == tuple(encoder.sparse_shape)


@pytest.mark.parametrize('shape', [[21, 256, 256], [41, 90, 130]])
def test_bev_shape_is_that_of_the_encoder(model_config, shape):
    config = {**model_config.pts_middle_encoder, 'sparse_shape': shape}
    encoder = MODELS.build(config).eval()
    with torch.no_grad():
        bev = encoder(torch.ones(1, encoder.in_channels), torch.zeros(1, 4).int(), 1)
    assert bev.shape[1:] == bev_shape(encoder)


def test_an_empty_batch_runs_no_sparse_convolution(detector):
    """A frozen encoder adds nothing to the graph; one that trains gets a gradient of zero."""
    detector.train()
    encoder = detector.pts_middle_encoder
    encoder.forward = None
    inputs = detector.data_preprocessor(batch([cloud(0), cloud(0)]))['inputs']
    bev = detector.extract_pts_feat(inputs)
    bev.sum().backward()
    assert all(p.grad.eq(0).all() for p in encoder.parameters())
    encoder.requires_grad_(False)
    assert not detector._empty_bev(inputs['voxels']['voxels'], 2).requires_grad


@pytest.mark.parametrize(
    ('modality', 'branch'),
    [
        ('lidar', {'img_backbone', 'img_neck'}),
        ('camera', {'pts_voxel_encoder', 'pts_middle_encoder', 'pts_backbone', 'pts_neck'}),
    ],
)
def test_one_sensor_alone_builds_one_branch(model_config, modality, branch):
    config = model_config.copy()
    config.update(dict.fromkeys(branch))
    config.pts_bbox_head = {**config.pts_bbox_head, 'modalities': [modality]}
    detector = MODELS.build(config)
    assert not branch & {name for name, _ in detector.named_children()}
    losses = losses_of(detector, batch([cloud(), cloud()]))
    assert all(torch.isfinite(value) for value in losses.values())


def test_half_a_branch_is_refused(model_config):
    config = {k: v for k, v in model_config.items() if k not in ('type', 'img_neck')}
    with pytest.raises(ValueError, match=r"camera branch \['img_neck'\] is missing"):
        CmtDetector(**config)


def test_a_lidar_branch_needs_voxels(model_config):
    config = {k: v for k, v in model_config.items() if k != 'type'}
    config['data_preprocessor'] = {**config['data_preprocessor'], 'voxel_layer': None}
    limits = model_config.data_preprocessor.voxel_layer.point_cloud_range
    config['pts_bbox_head'] = {**config['pts_bbox_head'], 'point_cloud_range': limits}
    config['pts_middle_encoder'] = {**config['pts_middle_encoder'], 'sparse_shape': [21, 256, 256]}
    with pytest.raises(ValueError, match='data_preprocessor has no voxel_layer, which makes'):
        CmtDetector(**config)


def test_the_rest_of_a_branch_runs_on_its_features(detector, monkeypatch):
    """Features of the backbones or of the necks in place of points and images."""
    detector.eval()
    inputs = detector.data_preprocessor(batch([cloud(), cloud()]))['inputs']
    with torch.no_grad():
        whole = detector.extract_feat(inputs)
        backbones = {
            'img_backbone': detector.image_maps(inputs['imgs']),
            'pts_backbone': detector.bev_maps(inputs['voxels'], 2),
        }
        necks = {'pts_neck': [whole[0]], 'img_neck': [whole[1]]}
        for name in backbones:
            monkeypatch.setattr(detector.get_submodule(name), 'forward', None)
        for features in (backbones, necks):
            maps = detector.extract_feat({'features': features})
            assert all(torch.equal(*pair) for pair in zip(maps, whole, strict=True))
