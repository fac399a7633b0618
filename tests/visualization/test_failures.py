"""The contact sheet of failures: where damage is drawn, and what the frames hold."""

import numpy as np
import pytest
from mmdet3d.registry import DATASETS, TRANSFORMS
from mmengine.config import Config

from projects.cmt_aqr.visualization.damaged_frame import (
    DamagedFrame,
    load_damaged,
    loaders_of,
    telling_seed,
)
from projects.cmt_aqr.visualization.failures import FRONT as SHOWN
from projects.cmt_aqr.visualization.failures import (
    MOST_OPAQUE,
    damage_colours,
    render_failures,
)
from projects.cmt_aqr.visualization.frame import FROM_ABOVE

RANGE = (-20.0, -20.0, -3.0, 20.0, 20.0, 3.0)
# Looks along +y, with a focal length of 40 pixels.
AHEAD = np.array([[40.0, 40, 0, 0], [0, 20, -40, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def make_frame(*, lidar=None, camera=1.0, failed=True) -> DamagedFrame:
    return DamagedFrame(
        points=np.zeros((0, 5), np.float32),
        images={name: np.full((40, 80, 3), 128, np.uint8) for name in SHOWN},
        lidar2img=dict.fromkeys(SHOWN, AHEAD),
        boxes=[],
        lidar_health=np.ones((8, 8)) if lidar is None else lidar,
        camera_health=dict.fromkeys(SHOWN, np.full((4, 8), camera)),
        failed=failed,
    )


def sheet(**rows):
    return render_failures(
        {'clean': [make_frame(failed=False)], **rows}, point_cloud_range=RANGE, title='sample'
    )


def redness(figure, label: str, place: tuple[float, float]) -> float:
    """How much redder than blue a panel is at a place of its own."""
    figure.canvas.draw()
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3].astype(float)
    (axes,) = (axes for axes in figure.axes if axes.get_label() == label)
    x, y = axes.transData.transform(place)
    red, _, blue = image[image.shape[0] - round(y), round(x)]
    return red - blue


def test_damage_from_above_is_where_it_is_on_the_ground():
    """Lost where x < 0 and y > 0: to the left and ahead; ahead is right in the picture."""
    health = np.ones((8, 8))
    health[4:, :4] = 0  # rows along y
    figure = sheet(fog=[make_frame(lidar=health)])
    found = {
        (right, up): redness(figure, f'fog 1 {FROM_ABOVE}', (right, up)) > 50
        for right in (-13, 13)
        for up in (-13, 13)
    }
    assert found == {(-13, -13): False, (-13, 13): False, (13, -13): False, (13, 13): True}


def test_damage_in_images():
    figure = sheet(dark=[make_frame(), make_frame(camera=0.5), make_frame(camera=0.0)])
    red = [redness(figure, f'dark {severity} {SHOWN[0]}', (40, 20)) for severity in (1, 2, 3)]
    assert red[0] == 0
    assert 10 < red[1] < red[2] - 10


def test_colours_of_damage():
    colours = damage_colours(np.array([[1.0, 0.5, 0.0]]))
    assert colours[0, :, 3].tolist() == [0, MOST_OPAQUE / 2, MOST_OPAQUE]


def test_a_panel_for_each_sensor_of_each_severity():
    figure = sheet(fog=[make_frame()] * 3, drop=[make_frame()])
    labels = {axes.get_label() for axes in figure.axes}
    places = ['clean 1', 'fog 1', 'fog 2', 'fog 3', 'drop 1']
    assert labels == {
        f'{place} {what}' for place in places for what in ('title', FROM_ABOVE, *SHOWN)
    }


def test_titles_tell_what_is_left():
    figure = sheet(fog=[make_frame(camera=0.5), make_frame(failed=False)])
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert '0 of 0 points   healthy: LiDAR 1.00, cameras 0.50' in texts
    assert 'fog, severity 2' in texts
    assert 'nothing happens to this frame' in texts


@pytest.fixture(scope='module')
def tested(repo_root, synthetic_root):
    """Test data of the tiny model, its loaders, and options for loading the second sample."""
    cfg = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    dataset = cfg.test_dataloader.dataset
    loaders = loaders_of(dataset.pipeline)
    dataset = DATASETS.build(dict(dataset, data_root=str(synthetic_root), pipeline=[]))
    return (dataset, 1, loaders), dict(point_cloud_range=cfg.point_cloud_range)


def test_a_frame_is_loaded_whole_and_damaged(tested):
    place, options = tested
    clean = load_damaged(*place, **options)
    dropped = load_damaged(*place, **options, failure=dict(type='LidarDrop'))
    assert (clean.failed, dropped.failed) == (False, True)
    assert len(clean.points) > 1000
    assert len(dropped.points) == 0
    assert clean.lidar_health.min() == 1
    assert dropped.lidar_health.max() == 0
    assert set(SHOWN) < set(clean.images) == set(clean.camera_health)
    assert len(clean.boxes) == len(dropped.boxes) > 0
    assert np.array_equal(clean.images[SHOWN[0]], dropped.images[SHOWN[0]])


def test_the_scale_of_maps_is_that_of_the_range_and_the_images(tested):
    place, options = tested
    frame = load_damaged(*place, **options)
    assert frame.lidar_health.shape == (128, 128)
    rows, columns = frame.camera_health[SHOWN[0]].shape
    height, width = frame.images[SHOWN[0]].shape[:2]
    assert columns / rows == pytest.approx(width / height, rel=0.05)


def test_the_seed_is_one_by_which_all_severities_show(tested):
    (dataset, index, _), _ = tested
    info = dataset.get_data_info(index)
    failures = [dict(type='RandomCameraLoss', severity=severity) for severity in (1, 2, 3)]
    seed = telling_seed(info, failures, ['CAM_FRONT'])
    for failure in failures:
        results = dict(dataset.get_data_info(index))
        (drawn,) = TRANSFORMS.build(dict(failure, seed=seed))(results)['failures']
        assert 'CAM_FRONT' in drawn.cameras


def test_no_seed_helps_where_nothing_can_fail(tested):
    (dataset, index, _), _ = tested
    assert telling_seed(dataset.get_data_info(index), [dict(type='LidarDrop')], []) == 0
    lost_but_not_shown = [dict(type='RandomCameraLoss')]
    assert telling_seed(dataset.get_data_info(index), lost_but_not_shown, []) == 0


def test_a_pipeline_without_cameras_has_no_sheet():
    with pytest.raises(ValueError, match=r"no \['LoadMultiViewImages', 'ComputeLidar2Img'\]"):
        loaders_of([dict(type='LoadPointsOfKeyframe'), dict(type='LoadPointsOfSweeps')])
