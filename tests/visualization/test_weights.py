"""The picture of a router: what is seen, where its maps lie, and what its colours mean."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from projects.cmt_aqr.visualization.frame import FROM_ABOVE
from projects.cmt_aqr.visualization.observation import (
    BEV_SIGMA,
    CELLS,
    Observation,
    WeightMap,
    observe,
)
from projects.cmt_aqr.visualization.scene_boxes import Kind, SceneBox
from projects.cmt_aqr.visualization.weights import (
    MOST_OPAQUE,
    overlay,
    render_weights_over_inputs,
)

PLACES = ('FRONT_LEFT', 'FRONT', 'FRONT_RIGHT', 'BACK_LEFT', 'BACK', 'BACK_RIGHT')
CAMERAS = tuple(f'CAM_{place}' for place in PLACES)
RANGE = (-20.0, -20.0, -3.0, 20.0, 20.0, 3.0)
# Looks along x from the origin, with a focal length of 40 pixels and the centre at (40, 20).
AHEAD = np.array([[40.0, -40, 0, 0], [20, 0, -40, 0], [1, 0, 0, 0], [0, 0, 0, 1]])


def make_observation(*, lidar=0.0, camera=0.0, boxes=()):
    """Six grey cameras; the weight for LiDAR lies in the corner of least x and y."""
    bev = np.zeros((8, 8), dtype=np.float32)
    bev[0, :2] = lidar
    images = np.full((6, 20, 40), camera, dtype=np.float32)
    return Observation(
        points=np.zeros((0, 3), dtype=np.float32),
        images=np.full((6, 40, 80, 3), 128, dtype=np.uint8),
        cameras=CAMERAS,
        lidar2img=np.stack([AHEAD] * 6),
        boxes=boxes,
        lidar=WeightMap(bev, (bev != 0).astype(np.float32)),
        camera=WeightMap(images, np.ones_like(images)),
        mean_weights=(lidar, camera),
        point_cloud_range=RANGE,
    )


def axes_of(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def pixel(figure, label, place):
    """Mean colour of 3 x 3 pixels at a place of a panel."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
    x, y = axes_of(figure, label).transData.transform(place)
    row, column = image.shape[0] - round(y), round(x)
    return image[row - 1 : row + 2, column - 1 : column + 2].mean((0, 1))


def test_zero_is_transparent_and_both_signs_are_as_strong():
    mean = np.array([[0.0, 0.5, -0.5, 0.5, 0.9]])
    coverage = np.array([[1.0, 1.0, 1.0, 0.0, 2.0]])
    colours = overlay(WeightMap(mean, coverage), 0.5)[0]
    assert colours[:, 3].tolist() == pytest.approx([0, MOST_OPAQUE, MOST_OPAQUE, 0, MOST_OPAQUE])
    more, less = colours[1, :3], colours[2, :3]
    assert more[2] > more[0]  # blue
    assert less[0] > less[2]  # red
    assert colours[4].tolist() == colours[1].tolist()


def test_conditions_stand_side_by_side_with_every_camera():
    figure = render_weights_over_inputs({'a': make_observation(), 'b': make_observation()})
    labels = {axes.get_label() for axes in figure.axes}
    panels = (*CAMERAS, FROM_ABOVE, 'title')
    assert labels >= {f'{condition} {panel}' for condition in 'ab' for panel in panels}
    for panel in panels:
        left, right = (axes_of(figure, f'{c} {panel}').get_position() for c in 'ab')
        assert left.x1 < right.x0
        assert (left.y0, left.y1) == (right.y0, right.y1)
    texts = [text.get_text() for text in axes_of(figure, 'a CAM_BACK_LEFT').texts]
    assert texts == ['back left']


def test_a_weight_lies_where_it_is_from_above():
    figure = render_weights_over_inputs({'a': make_observation(lidar=-0.5)})
    # Least x is at the top, least y at the left; the map's first row runs along x.
    left, top = -19.0, 19.0
    assert np.ptp(pixel(figure, f'a {FROM_ABOVE}', (left, top - 4))) > 80
    assert np.ptp(pixel(figure, f'a {FROM_ABOVE}', (left + 8, top))) < 30
    assert np.ptp(pixel(figure, f'a {FROM_ABOVE}', (-left, -top))) < 30


def test_one_scale_serves_both_conditions():
    strong, weak = make_observation(camera=0.8), make_observation(camera=0.2)
    figure = render_weights_over_inputs({'a': strong, 'b': weak})
    colours = [np.ptp(pixel(figure, f'{c} CAM_FRONT', (70, 35))) for c in 'ab']
    assert colours[0] > 1.5 * colours[1] > 30
    (bar,) = axes_of(figure, 'scale').child_axes
    assert [tick.get_text() for tick in bar.get_xticklabels()] == ['-0.80', '0, as CMT', '+0.80']


def test_boxes_are_drawn_before_the_camera_alone():
    def box(x):
        return SceneBox('bus', Kind.PREDICTION, Box([x, 0, 0], [2, 4, 2], Quaternion()))

    figure = render_weights_over_inputs({'a': make_observation(boxes=[box(10), box(-10)])})
    lines, empty = axes_of(figure, 'a CAM_FRONT').collections[:3:2]
    # Its corners are 8 and 12 m away and 1 m to each side.
    ends = np.concatenate(lines.get_segments())
    assert (ends[:, 0].min(), ends[:, 0].max()) == pytest.approx((40 - 40 / 8, 40 + 40 / 8))
    assert len(empty.get_segments()) == 0
    legend = axes_of(figure, 'classes').get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ['bus']


@pytest.fixture(scope='module')
def routed_model(repo_root):
    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py')
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        from mmdet3d.registry import MODELS

        torch.manual_seed(0)
        return MODELS.build(cfg.model).eval()


def test_maps_are_drawn_round_the_queries(routed_model, synthetic_root, repo_root):
    """A weight of one for LiDAR in all queries, which stand at one place: 10 m ahead, 5 m left."""
    from mmdet3d.registry import DATASETS

    cfg = Config.fromfile(repo_root / 'configs/cmt_aqr/cmt_aqr_tiny_synthetic.py')
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = str(synthetic_root)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = DATASETS.build(dataset)
    head = routed_model.pts_bbox_head
    place = torch.tensor([-5.0, 10.0, 0.0])
    low, high = torch.tensor(head.point_cloud_range).view(2, 3)
    with torch.no_grad():
        head.reference_points.weight.copy_((place - low) / (high - low))
        head.router.aqr_weight_generator.to_weight['lidar'].bias.fill_(100.0)
    names = list(dataset.get_data_info(0)['images'])
    seen = observe(
        routed_model,
        dataset[0],
        cameras=names,
        classes=dataset.metainfo['classes'],
        score_threshold=2.0,
    )
    assert seen.mean_weights == (1, 0)
    assert not head.router._forward_hooks
    assert (seen.images.shape, seen.boxes) == ((6, 64, 176, 3), [])
    rows, columns = np.nonzero(seen.lidar.mean)
    metres = 51.2 / CELLS
    assert columns.mean() == pytest.approx((-5 + 25.6) / metres, abs=1)
    assert rows.mean() == pytest.approx((10 + 25.6) / metres, abs=1)
    assert np.ptp(rows) == np.ptp(columns) == 6 * BEV_SIGMA
    covered = {name for name, part in zip(names, seen.camera.coverage, strict=True) if part.any()}
    assert covered == {'CAM_FRONT_LEFT', 'CAM_FRONT'} or covered == {'CAM_FRONT'}
