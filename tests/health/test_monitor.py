"""The health monitor beside the tiny CMT: what it reports, what it learns, what it leaves alone."""

import copy

import numpy as np
import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pretend_device import DEVICE, PretendDevice
from test_detector import batch, cloud

from projects.cmt_aqr.cameras import batch_cameras
from projects.cmt_aqr.health.monitor import _look_up_cameras


@pytest.fixture(scope='module')
def model_config(repo_root):
    init_default_scope('mmdet3d')
    config = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_health.py').model
    return {**config, 'fast_path': None}


@pytest.fixture(scope='module')
def detector(model_config):
    torch.manual_seed(0)
    return MODELS.build(copy.deepcopy(model_config))


def inputs_of(detector, points=None, views=(2, 1), **health):
    points = [cloud(), cloud(0)] if points is None else points
    for one in points:
        one[:, 4] = 0
    data = detector.data_preprocessor(batch(points, views=views))
    maps = dict(lidar=torch.ones(2, 32, 32), camera=torch.ones(2, 2, 8, 22))
    data['inputs']['health'] = {**maps, **health}
    return data


def test_it_is_small_and_all_that_trains(detector):
    training = {n: p for n, p in detector.named_parameters() if p.requires_grad}
    assert {name.split('.')[0] for name in training} == {'health_monitor'}
    assert 1e4 < sum(p.numel() for p in training.values()) < 5e4


def test_it_alone_has_losses_and_every_parameter_of_it_learns(detector):
    losses = detector(**inputs_of(detector), mode='loss')
    assert {*losses} == {f'loss_health_{n}' for n in ('lidar', 'cameras', 'bev', 'patches')}
    sum(losses.values()).backward()
    with_gradient = {n for n, p in detector.named_parameters() if p.grad is not None}
    assert with_gradient == {n for n, p in detector.named_parameters() if p.requires_grad}
    detector.zero_grad()


def test_a_model_that_trains_learns_nothing_from_it(detector):
    data = inputs_of(detector)
    inputs, samples = data['inputs'], data['data_samples']
    features = [x.detach().requires_grad_() for x in detector.extract_feat(inputs)]
    logits, _ = detector._health(features, inputs, samples)
    sum(x.sum() for x in logits).backward()
    assert [x.grad for x in features] == [None, None]
    detector.zero_grad()


def test_boxes_are_those_of_the_detector_without_it(model_config, detector):
    plain = MODELS.build({**copy.deepcopy(model_config), 'health_monitor': None}).eval()
    detector.eval()
    state = detector.state_dict()
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith('health_monitor')})
    with torch.no_grad():
        data = inputs_of(detector, [cloud(), cloud()])
        ours = detector(**copy.deepcopy(data), mode='predict')
        theirs = plain(**copy.deepcopy(data), mode='predict')
    for one, other in zip(ours, theirs, strict=True):
        mine, its = one.pred_instances_3d, other.pred_instances_3d
        assert len(mine) > 0
        assert torch.equal(mine.bboxes_3d.tensor, its.bboxes_3d.tensor)
        assert torch.equal(mine.scores_3d, its.scores_3d)
        assert torch.equal(mine.labels_3d, its.labels_3d)
        assert 'pred_health' in one
        assert 'pred_health' not in other


def test_each_sample_gets_a_report_and_the_truth(detector):
    detector.eval()
    lidar, camera = torch.ones(2, 32, 32), torch.ones(2, 2, 8, 22)
    lidar[1, 3, 4], camera[0, 1, 0] = 0.5, 0.2
    with torch.no_grad():
        first, second = detector(**inputs_of(detector, lidar=lidar, camera=camera), mode='predict')
    assert (first.gt_health.lidar, second.gt_health.lidar) == (1, 0)
    assert first.gt_health.cameras.tolist() == [1, 0]
    assert second.gt_health.cameras.tolist() == [1]
    assert torch.equal(second.gt_health.bev, lidar[1])
    for sample, count in ((first, 2), (second, 1)):
        report = sample.pred_health
        assert report.cameras.shape == (count,)
        assert report.patches.shape == (count, 8, 24)  # of the padded images
        assert report.bev.shape == (32, 32)
        for values in report.to_dict().values():
            assert ((values > 0) & (values < 1)).all()


def test_no_report_of_a_truth_that_is_not_known(detector):
    detector.eval()
    data = inputs_of(detector)
    del data['inputs']['health']
    with torch.no_grad():
        assert 'gt_health' not in detector(**data, mode='predict')[0]
    with pytest.raises(ValueError, match='pack the samples with PackHealth'):
        detector(**data, mode='loss')


def test_a_missing_input_is_named(detector):
    data = inputs_of(detector)
    del data['inputs']['imgs']
    with pytest.raises(ValueError, match='the batch has only one of them'):
        detector(**data, mode='loss')


def test_it_needs_both_sensors(model_config):
    config = copy.deepcopy(model_config)
    config.update(img_backbone=None, img_neck=None)
    config['pts_bbox_head'] = {**config['pts_bbox_head'], 'modalities': ['lidar']}
    with pytest.raises(ValueError, match=r"modalities is \['lidar'\]; leave health_monitor out"):
        MODELS.build(config)


def test_a_camera_that_a_sample_lacks_has_no_loss(detector):
    detector.eval()
    data = inputs_of(detector)
    healthy = detector(**copy.deepcopy(data), mode='loss')
    data['inputs']['health']['camera'][1, 1] = 0  # of the sample with one camera
    damaged = detector(**data, mode='loss')
    assert all(torch.equal(healthy[name], damaged[name]) for name in healthy)


def test_it_learns_to_tell_an_empty_cloud_and_a_black_image(detector):
    torch.manual_seed(0)
    detector.train()
    data = inputs_of(detector)
    data['inputs']['imgs'][0, 1] = -2.0
    data['inputs']['health']['lidar'][1] = 0
    data['inputs']['health']['camera'][0, 1] = 0
    optimizer = torch.optim.Adam(detector.health_monitor.parameters(), lr=0.01)
    for _ in range(25):
        optimizer.zero_grad()
        sum(detector(**copy.deepcopy(data), mode='loss').values()).backward()
        optimizer.step()
    detector.health_monitor.eval()
    first, second = detector(**data, mode='predict')
    assert first.pred_health.lidar > 0.8 > 0.2 > second.pred_health.lidar
    assert first.pred_health.cameras[0] > 0.8 > 0.2 > first.pred_health.cameras[1]
    assert second.pred_health.bev.mean() < 0.2


def test_nothing_waits_for_the_device(detector):
    detector.eval()
    inputs, samples = (inputs_of(detector)[name] for name in ('inputs', 'data_samples'))
    with torch.no_grad():
        bev, images = detector.extract_feat(inputs)
        monitor = copy.deepcopy(detector.health_monitor)
        with PretendDevice() as device:
            monitor.to(DEVICE)
            bev, images = bev.to(DEVICE), images.to(DEVICE)
            inputs = dict(
                points=[cloud.to(DEVICE) for cloud in inputs['points']],
                imgs=inputs['imgs'].to(DEVICE),
            )
            cameras = batch_cameras([sample.metainfo for sample in samples], like=images)
            device.waits.clear()
            monitor(bev, images, inputs, cameras)
    assert not device.waits


def test_a_monitor_reads_its_statistics_from_a_cache(detector):
    inputs = inputs_of(detector)['inputs']
    for branch, module in (('lidar', 'pts_backbone'), ('camera', 'img_neck')):
        computed = detector.health_monitor.statistics_of(branch, inputs)
        cached = dict(features={module: [None, computed]})
        assert detector.health_monitor.statistics_of(branch, cached) is computed


def test_the_training_data_of_the_config_have_health(repo_root, synthetic_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_health.py')
    settings = cfg.train_dataloader.dataset
    settings.update(data_root=str(synthetic_root))
    settings.metainfo.version = 'v1.0-mini'
    for step in settings.pipeline:
        for failure in step.get('failures', ()):
            if 'ann_file' in failure:
                failure.ann_file = str(synthetic_root / 'nuscenes_infos_train.pkl')
    dataset = DATASETS.build(settings)
    dataset.pipeline.transforms[0].set_epoch(0)
    sample = dataset[1]
    assert sample['inputs']['health']['lidar'].shape == (32, 32)
    assert sample['inputs']['health']['camera'].shape == (6, 8, 22)
    assert len(sample['data_samples'].camera_names) == 6


def test_a_frozen_monitor_reports_and_has_no_losses(model_config):
    config = copy.deepcopy(model_config)
    config['health_monitor'] = dict(config['health_monitor'], frozen=True)
    config['pts_bbox_head'] = dict(config['pts_bbox_head'], frozen=False)
    detector = MODELS.build(config)
    data = inputs_of(detector)
    del data['inputs']['health']
    losses = detector(**data, mode='loss')
    assert losses
    assert not any('health' in name for name in losses)
    assert all('pred_health' in sample for sample in detector.eval()(**data, mode='predict'))


def test_it_stands_beside_a_head_that_is_frozen_while_a_neck_trains(model_config):
    config = copy.deepcopy(model_config)
    config['img_neck'] = dict(config['img_neck'], frozen=False)
    losses = MODELS.build(config)(**inputs_of(MODELS.build(config)), mode='loss')
    assert {'loss_cls', 'loss_health_lidar'} <= {*losses}


def test_a_cell_looks_up_what_the_cameras_see_there():
    """Of two cameras: the mean of those that see the place, zero where none does."""
    matrix = np.array([[50.0, -100, 0, 0], [20, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    meta = dict(lidar2img=np.stack([matrix, matrix]), pad_shape=(40, 100))
    cameras = batch_cameras([meta], like=torch.zeros(1, 2))
    views = torch.arange(2 * 4 * 10, dtype=torch.float).view(1, 2, 1, 4, 10)
    # Pixels (45, 25) and (75, 15): row 2 and column 4, row 1 and column 7; and behind both.
    points = torch.tensor([[10, 0.5, -0.5], [10, -2.5, 0.5], [-10.0, 0, 0]])
    found = _look_up_cameras(views, points, cameras)[0, 0]
    assert found.tolist() == pytest.approx([24 + 20, 17 + 20, 0])
    cameras = cameras._replace(camera_mask=torch.tensor([[True, False]]))
    assert _look_up_cameras(views, points, cameras)[0, 0].tolist() == pytest.approx([24, 17, 0])


def test_bev_cells_lie_within_the_range(detector):
    monitor = detector.health_monitor
    x_min, y_min = monitor.point_cloud_range[:2]
    width, height = monitor.voxel_grid.cell_size((2, 4))
    centres = monitor._cell_centres((2, 4), torch.zeros(1))
    assert centres[0].tolist() == pytest.approx([x_min + width / 2, y_min + height / 2])
    assert (centres[1] - centres[0]).tolist() == pytest.approx([width, 0])
    assert (centres[4] - centres[0]).tolist() == pytest.approx([0, height])
