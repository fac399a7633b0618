"""The picture of health: the numbers in its labels and the places of its colours."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from projects.cmt_aqr.health import Health
from projects.cmt_aqr.visualization.failures import DAMAGE
from projects.cmt_aqr.visualization.frame import FROM_ABOVE
from projects.cmt_aqr.visualization.health import HealthView, render_health

CAMERAS = [
    f'CAM_{name}'
    for name in ('FRONT', 'FRONT_LEFT', 'FRONT_RIGHT', 'BACK', 'BACK_LEFT', 'BACK_RIGHT')
]
RANGE = (-20.0, -20.0, -3.0, 20.0, 20.0, 3.0)


@pytest.fixture(scope='module')
def figure():
    """All is well but the corner of least x and y, and the front camera."""
    bev, patches = np.ones((8, 8)), np.ones((6, 2, 4))
    bev[:3, :3] = 0
    front = CAMERAS.index('CAM_FRONT')
    patches[front] = 0
    cameras = np.full(6, 0.98)
    cameras[front] = 0.03
    view = HealthView(
        points=np.zeros((0, 3), dtype=np.float32),
        images=np.full((6, 40, 80, 3), 128, dtype=np.uint8),
        cameras=CAMERAS,
        lidar2img=np.stack([np.eye(4)] * 6),
        boxes=(),
        health=Health(np.float32(0.75), cameras, bev, patches),
        point_cloud_range=RANGE,
    )
    figure = render_health({'clean': view, 'fog': view})
    figure.canvas.draw()
    return figure


def axes_of(figure, label):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def redness(figure, label, place) -> float:
    """Red less green, 0 to 1, at a place of a panel."""
    image = np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255.0
    x, y = axes_of(figure, label).transData.transform(place)
    red, green, _ = image[image.shape[0] - round(y), round(x)]
    return red - green


def test_each_sensor_has_its_number_and_the_unwell_one_a_frame(figure):
    for condition in ('clean', 'fog'):
        said = {
            label: [text.get_text() for text in axes_of(figure, f'{condition} {label}').texts]
            for label in (FROM_ABOVE, *CAMERAS)
        }
        assert 'LIDAR  0.75' in said[FROM_ABOVE]
        assert 'FRONT  0.03' in said['CAM_FRONT']
        assert 'BACK LEFT  0.98' in said['CAM_BACK_LEFT']
        for label in (FROM_ABOVE, *CAMERAS):
            spine = axes_of(figure, f'{condition} {label}').spines['left']
            framed = spine.get_visible() and spine.get_edgecolor()[:3] == to_rgb(DAMAGE)
            assert framed == (label == 'CAM_FRONT')


def test_damage_is_red_where_it_is(figure):
    assert redness(figure, 'clean CAM_FRONT', (40, 30)) > 0.2
    assert redness(figure, 'clean CAM_BACK', (40, 30)) == pytest.approx(0, abs=0.01)
    # Seen from above, y points right and x down.
    assert redness(figure, f'clean {FROM_ABOVE}', (-17, 17)) > 0.2
    assert redness(figure, f'clean {FROM_ABOVE}', (17, -17)) == pytest.approx(0, abs=0.05)
