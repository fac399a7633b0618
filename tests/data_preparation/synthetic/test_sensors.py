"""LiDAR and cameras see the same world."""

from dataclasses import replace

import numpy as np
import pytest

from projects.cmt_aqr.data_preparation.synthetic.actors import Actor, Track, Visible
from projects.cmt_aqr.data_preparation.synthetic.cameras import (
    Camera,
    PixelCounts,
    View,
    develop,
    ground_texture,
    make_cameras,
)
from projects.cmt_aqr.data_preparation.synthetic.classes import BY_NAME
from projects.cmt_aqr.data_preparation.synthetic.ground import Ground
from projects.cmt_aqr.data_preparation.synthetic.lidar import BEAMS, Lidar
from projects.cmt_aqr.data_preparation.synthetic.raycast import Box, rotate_z
from projects.cmt_aqr.data_preparation.synthetic.rig import CAMERAS, LIDAR
from projects.cmt_aqr.data_preparation.synthetic.street import Scene
from projects.cmt_aqr.data_preparation.synthetic.weather import Weather

DRY = Weather(
    light=np.array([0.0, 0.0, 1.0]),
    exposure=1.0,
    sky=np.array([0.4, 0.6, 0.9]),
    haze=np.full(3, 0.9),
)
CALM = replace(DRY, lidar_loss=0.0)


def place(
    index: int, x: float, y: float, *, yaw: float = 0.0, size=(2.0, 2.0, 3.0), name='barrier'
) -> Visible:
    """An object of one colour on the ground at (x, y) of the ego frame."""
    colour, size = np.array([0.9, 0.1, 0.3]), np.array(size)
    actor = Actor(BY_NAME[name], size, Track.still(x, y, yaw), 200.0, colour, colour)
    return Visible(index, actor, Box(np.array([x, y, size[2] / 2]), size, yaw))


def make_view(weather: Weather) -> View:
    """View from the origin over grey ground."""
    scene = Scene(
        path=Track.still(0, 0, 0),
        actors=(),
        draw_distance=24.0,
        roadway=None,
        weather=weather,
        ground=Ground(np.zeros(2), np.full((1, 1, 3), 0.4, np.float32)),
    )
    return View(scene, 0.0, ground_texture(np.random.default_rng(0)))


@pytest.fixture(scope='module')
def view() -> View:
    return make_view(DRY)


def to_ego(points: np.ndarray) -> np.ndarray:
    return points @ LIDAR.rotation.rotation_matrix.T + LIDAR.position


def test_points_lie_on_the_surface_and_are_counted():
    lidar = Lidar(range_noise=0.0)
    item = place(3, 8.0, 5.0, yaw=0.4)
    points, counts = lidar.sweep([item], CALM, np.random.default_rng(0))
    (solid,) = item.actor.solid_boxes(item.box)
    local = rotate_z(to_ego(points[:, :3]) - solid.centre, -solid.yaw)
    outside = np.abs(local) - solid.size / 2
    above = to_ego(points[:, :3])[:, 2] > 1e-3
    assert np.abs(outside[above].max(1)).max() < 1e-4
    assert list(counts) == [3]
    # All but the lowest beams meet the object clear of the ground.
    assert 100 < counts[3] - 40 <= above.sum() <= counts[3]
    assert to_ego(points[~above, :3])[:, 2] == pytest.approx(0, abs=1e-3)


def test_sweep_layout():
    points, _ = Lidar().sweep([place(0, 8.0, 0.0)], DRY, np.random.default_rng(0))
    assert points.dtype == np.float32
    assert points.shape[1] == 5
    assert 6000 <= len(points) <= 13000
    assert set(points[:, 4]) <= set(range(BEAMS))
    assert points[:, 3].min() >= 0
    assert points[:, 3].max() <= 255
    elevation = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
    assert elevation == pytest.approx(-30.67 + points[:, 4] * 41.34 / 31, abs=0.01)
    ahead = points[points[:, 2] > -1.5]
    # Forward of the vehicle is +y of the LiDAR.
    assert len(ahead) > 100
    assert ahead[:, 1].min() > 5
    assert np.abs(ahead[:, 0]).max() < 1.1


def test_near_object_hides_far_one():
    lidar = Lidar()
    near, far = place(0, 6.0, 0.0), place(1, 15.0, 0.0, size=(1.0, 0.5, 1.0))
    alone = lidar.sweep([far], CALM, np.random.default_rng(0))[1]
    assert alone[1] > 0
    for order in ([near, far], [far, near]):
        assert set(lidar.sweep(order, CALM, np.random.default_rng(0))[1]) == {0}


def test_object_across_the_seam_of_the_turn():
    lidar = Lidar(range_noise=0.0)
    angles = np.linspace(-np.pi, np.pi, 13)
    counts = [
        lidar.sweep(
            [place(0, 0.94 + 10 * np.cos(a), 10 * np.sin(a), yaw=a)], CALM, np.random.default_rng(0)
        )[1][0]
        for a in angles
    ]
    assert max(counts) - min(counts) <= 0.15 * max(counts)


@pytest.mark.parametrize('mount', CAMERAS, ids=lambda m: m.channel)
def test_projected_centre_shows_the_object(mount, view):
    camera = Camera(mount, width=352, height=198)
    heading = mount.rotation.rotation_matrix[:, 2]
    spot = np.array(mount.position) + 8 * heading
    item = place(5, spot[0], spot[1], yaw=0.3)
    counts = PixelCounts()
    image, owner = camera.render(view, [item], counts)
    local = mount.rotation.inverse.rotation_matrix @ (item.box.centre - mount.position)
    u, v, depth = camera.intrinsic @ local
    column, row = int(u / depth), int(v / depth)
    assert owner[row, column] == 5
    colour = image[row, column] / image[row, column].max()
    assert colour == pytest.approx(item.actor.base / item.actor.base.max(), abs=1e-3)
    assert counts.share(5) == 1.0
    assert counts[5][1] == (owner == 5).sum()
    assert (owner[[0, -1]] == -1).all()


def test_visible_share_of_a_half_hidden_object(view):
    camera = Camera(CAMERAS[0], width=352, height=198)
    counts = PixelCounts()
    front, back = place(0, 8.0, 1.0), place(1, 12.0, 0.0, size=(1.0, 4.0, 1.0))
    _, owner = camera.render(view, [back, front], counts)
    assert counts.share(0) == 1.0
    assert 0.1 < counts.share(1) < 0.9
    assert counts[1][1] == (owner == 1).sum()


def test_object_across_the_image_plane_is_drawn(view):
    camera = Camera(CAMERAS[0], width=352, height=198)
    item = place(0, 4.0, 2.5, size=(11.0, 2.0, 3.0))
    assert camera.window(item.box) is not None
    _, owner = camera.render(view, [item], PixelCounts())
    assert (owner[:, 0] == 0).any()


def test_object_behind_is_not_drawn(view):
    assert Camera(CAMERAS[0], width=352, height=198).window(place(0, -8.0, 0.0).box) is None


def test_cameras_cover_the_whole_turn():
    cameras = make_cameras(64, 36)
    for angle in np.radians(np.arange(0, 360, 5)):
        spot = place(0, 15 * np.cos(angle), 15 * np.sin(angle)).box
        assert any(camera.window(spot) is not None for camera in cameras)


def test_texture_is_invisible_to_the_lidar():
    item = place(0, 8.0, 0.0)
    dark = Visible(0, Actor(**(vars(item.actor) | dict(base=np.zeros(3)))), item.box)
    one, other = (Lidar().sweep([i], DRY, np.random.default_rng(0))[0] for i in (item, dark))
    assert (one == other).all()


def test_rain_thins_returns_most_where_they_are_far_and_adds_ghosts_near_the_ground():
    rain = replace(DRY, lidar_loss=0.1, lidar_fade=0.6, spray=0.3)
    dry, wet = (to_ego(Lidar(range_noise=0.0).sweep([], w, np.random.default_rng(0))[0][:, :3])
                for w in (DRY, rain))  # fmt: skip
    ghosts = wet[:, 2] > 0.01
    assert 20 < ghosts.sum() < 1000
    assert wet[ghosts, 2].max() < 1.0
    assert np.hypot(*wet[ghosts, :2].T).max() < 20
    assert not (dry[:, 2] > 0.01).any()
    shares = []
    for low, high in ((0, 10), (40, 60)):
        counts = [
            np.count_nonzero((np.abs(p[:, 2]) < 0.01) & (r >= low) & (r < high))
            for p, r in ((p, np.hypot(*p[:, :2].T)) for p in (dry, wet))
        ]
        shares.append(counts[1] / counts[0])
    # By hand: at 6 m and 45 m on average.
    assert shares[0] == pytest.approx((1 - 0.1 - 0.6 * 6 / 60) / 0.97, abs=0.08)
    assert shares[1] == pytest.approx((1 - 0.1 - 0.6 * 45 / 60) / 0.97, abs=0.08)


def test_spray_does_not_count_as_points_of_an_object():
    rain = replace(DRY, lidar_loss=0.0, spray=1.0)
    item = place(0, 6.0, 0.0, size=(2.0, 12.0, 3.0))
    calm, wet = (Lidar().sweep([item], w, np.random.default_rng(3))[1][0] for w in (CALM, rain))
    assert wet < calm


def test_headlamps_and_lamps_shine_at_night():
    night = replace(DRY, night=True, exposure=0.05, light=np.zeros(3))
    camera = Camera(CAMERAS[0], width=352, height=198)
    day, dark = (make_view(w).background(camera) for w in (DRY, night))
    near, far = 160, 105  # rows: 5 m and 50 m ahead
    assert dark[near, 176].mean() > 0.4 * day[near, 176].mean()
    assert dark[far, 176].mean() < 0.2 * day[far, 176].mean()
    car = place(0, 10.0, 0.0, yaw=np.pi, size=(4.6, 1.95, 1.75), name='car')
    image, owner = camera.render(make_view(night), [car], PixelCounts())
    assert image[owner == 0].max() == pytest.approx(0.9, abs=0.01)


def test_front_and_rear_look_different_and_have_different_shapes():
    camera = Camera(CAMERAS[0], width=352, height=198)
    for name in ('car', 'truck', 'bus', 'trailer', 'motorcycle', 'bicycle', 'pedestrian'):
        size = BY_NAME[name].shape.size
        pictures, clouds = [], []
        for yaw in (0.0, np.pi):
            item = place(0, 12.0, 0.0, yaw=yaw, size=size, name=name)
            pictures.append(camera.render(make_view(DRY), [item], PixelCounts())[0])
            clouds.append(Lidar(range_noise=0.0).sweep([item], CALM, np.random.default_rng(0))[0])
        assert np.abs(pictures[0] - pictures[1]).max() > 0.2, name
        assert len(clouds[0]) != len(clouds[1]) or (clouds[0] != clouds[1]).any(), name


def test_noise_has_the_given_strength():
    grey = np.full((100, 100, 3), 0.5, np.float32)
    image = develop(grey, 0.03, np.random.default_rng(0)) / 255
    assert image.std() == pytest.approx(0.03, rel=0.05)
