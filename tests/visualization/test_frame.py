"""The picture shows every sensor, and boxes where the devkit puts them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from mmdet3d.structures import Det3DDataSample
from nuscenes import NuScenes
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.utils import category_to_detection_name
from nuscenes.utils.data_classes import Box, LidarPointCloud
from nuscenes.utils.geometry_utils import BoxVisibility, view_points
from pyquaternion import Quaternion

from projects.cmt_aqr.visualization import load_predictions, render_frame
from projects.cmt_aqr.visualization.drawing import path_in_image
from projects.cmt_aqr.visualization.frame import FROM_ABOVE, render_views, ring_order
from projects.cmt_aqr.visualization.frame_view import FrameView, paths_of
from projects.cmt_aqr.visualization.scene_boxes import (
    NEAR,
    OTHER,
    Kind,
    SceneBox,
    project,
    sample_boxes,
)
from projects.cmt_aqr.visualization.style import COLOURS

# In the order of their ring.
CAMERAS = (
    'CAM_FRONT_LEFT',
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK',
    'CAM_BACK_RIGHT',
)
INTRINSIC = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])


@pytest.fixture(scope='module')
def nusc(synthetic_root) -> NuScenes:
    return NuScenes(version='v1.0-mini', dataroot=str(synthetic_root), verbose=False)


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]


def axes_of(figure: Figure, label: str):
    return next(axes for axes in figure.axes if axes.get_label() == label)


def colour_error(figure: Figure, label: str, place: np.ndarray, name: str) -> float:
    """Least difference, 0 to 255, between a class's colour and the 5 x 5 pixels at a place."""
    image = pixels(figure)
    x, y = axes_of(figure, label).transData.transform(place)
    row, column = image.shape[0] - round(y), round(x)
    around = image[row - 2 : row + 3, column - 2 : column + 3].astype(int)
    return np.abs(around - 255 * np.array(to_rgb(COLOURS[name]))).max(-1).min()


def prediction(sample: str, box: Box, name: str = 'bus', score: float = 0.9) -> dict:
    return dict(
        sample_token=sample,
        translation=list(box.center),
        size=list(box.wlh),
        rotation=list(box.orientation.elements),
        velocity=[0.0, 0.0],
        detection_name=name,
        detection_score=score,
        attribute_name='',
    )


def write_predictions(file: Path, boxes: dict[str, list[dict]]) -> Path:
    file.write_text(json.dumps(dict(meta={}, results=boxes)))
    return file


def test_colours_are_of_all_classes_and_differ():
    assert set(COLOURS) == {*DETECTION_NAMES, 'other'}
    assert len(set(COLOURS.values())) == len(COLOURS)


@pytest.mark.parametrize('width', [1600, 800])
def test_size_and_panels(nusc, width):
    figure = render_frame(nusc, nusc.sample[0]['token'], width=width)
    image = pixels(figure)
    # Two rows of 16:9 images, three a row, and what is round them.
    assert image.shape == (1494 * width // 1600, width, 3)
    assert {axes.get_label() for axes in figure.axes} == {*CAMERAS, FROM_ABOVE, 'legend'}
    for channel in CAMERAS:
        assert axes_of(figure, channel).images[0].get_array().shape == (198, 352, 3)


def test_cameras_stand_in_their_ring_order(nusc):
    figure = render_frame(nusc, nusc.sample[0]['token'], width=400)
    corners = {c: axes_of(figure, c).get_position().bounds[:2] for c in CAMERAS}
    for row in (CAMERAS[:3], CAMERAS[3:]):
        left = [corners[c][0] for c in row]
        assert left == sorted(left)
        assert len({corners[c][1] for c in row}) == 1
    assert corners['CAM_FRONT'][1] > corners['CAM_BACK'][1]


def test_box_edges_carry_the_class_colour_where_the_devkit_projects_them(nusc):
    checked = 0
    for sample in nusc.sample[:3]:
        figure = render_frame(nusc, sample['token'])
        for channel in CAMERAS:
            _, boxes, intrinsic = nusc.get_sample_data(
                sample['data'][channel], box_vis_level=BoxVisibility.ALL
            )
            for box in boxes:
                if nusc.get('sample_annotation', box.token)['num_lidar_pts'] == 0:
                    continue
                others = [b for b in boxes if b is not box]
                corners = view_points(box.corners(), intrinsic, normalize=True)[:2]
                middle = corners[:, [0, 4]].mean(1)
                hidden = [view_points(b.corners(), intrinsic, normalize=True)[:2] for b in others]
                if any((abs(h.mean(1) - middle) < np.ptp(h, axis=1)).all() for h in hidden):
                    continue
                assert colour_error(figure, channel, middle, _name(box)) < 30
                checked += 1
    assert checked >= 5


def test_view_from_above_has_the_points_and_boxes_of_the_lidar_frame(nusc):
    sample = nusc.sample[1]
    path, boxes, _ = nusc.get_sample_data(sample['data']['LIDAR_TOP'])
    figure = render_frame(nusc, sample['token'])
    axes = axes_of(figure, FROM_ABOVE)
    drawn = next(c for c in axes.collections if c.get_label() == FROM_ABOVE).get_offsets()
    points = LidarPointCloud.from_file(path).points
    expected = np.stack([points[1], -points[0]], axis=1)
    assert sorted(np.asarray(drawn).tolist()) == sorted(expected.tolist())
    # One metre is as long one way as the other.
    ahead, left = axes.transData.transform(np.eye(2)) - axes.transData.transform((0, 0))
    assert ahead[0] == pytest.approx(left[1], rel=0.01)
    for box in boxes:
        if nusc.get('sample_annotation', box.token)['num_lidar_pts'] > 0:
            # The middle of the farthest side: the points on a near one cover its line.
            outline = box.bottom_corners()[:2].T
            sides = (outline + np.roll(outline, 1, axis=0)) / 2
            x, y = max(sides, key=np.linalg.norm)
            assert colour_error(figure, FROM_ABOVE, (y, -x), _name(box)) < 40
    wide, high = axes.get_xlim()[1], axes.get_ylim()[1]
    assert all(abs(b.center[0]) < high and abs(b.center[1]) < wide for b in boxes)


def _name(box: Box) -> str:
    return category_to_detection_name(box.name) or OTHER


def test_predictions_stand_where_the_ground_truth_does(nusc, tmp_path):
    sample = nusc.sample[2]
    truth = [nusc.get_box(token) for token in sample['anns']]
    file = write_predictions(
        tmp_path / 'results_nusc.json',
        {sample['token']: [prediction(sample['token'], box) for box in truth]},
    )
    boxes = load_predictions(file)[sample['token']]
    for channel in (*CAMERAS, 'LIDAR_TOP'):
        items = sample_boxes(nusc, sample['data'][channel], boxes)
        assert [item.kind for item in items[len(truth) :]] == [Kind.PREDICTION] * len(truth)
        assert {item.name for item in items[len(truth) :]} == {'bus'}
        for annotated, predicted in zip(items, items[len(truth) :], strict=False):
            assert predicted.box.corners() == pytest.approx(annotated.box.corners(), abs=1e-6)


def test_only_sure_predictions_are_drawn(nusc, tmp_path):
    token = nusc.sample[0]['token']
    box = nusc.get_box(nusc.sample[0]['anns'][0])
    sure, unsure = prediction(token, box, score=0.5), prediction(token, box, score=0.49)
    file = write_predictions(tmp_path / 'results.json', {token: [sure, unsure, unsure]})
    figure = render_frame(
        nusc, token, predictions=load_predictions(file), score_threshold=0.5, width=400
    )
    legend = [t.get_text() for t in axes_of(figure, 'legend').get_legend().get_texts()]
    assert [text for text in legend if 'false alarm' in text] == ['? false alarm  1']


def test_annotations_without_points_are_marked(nusc):
    for sample in nusc.sample:
        for item in sample_boxes(nusc, sample['data']['CAM_BACK']):
            points = nusc.get('sample_annotation', item.box.token)['num_lidar_pts']
            assert item.kind is (Kind.TRUTH if points else Kind.UNSEEN)


def test_any_rig_stands_in_its_ring_order():
    def looking(degrees: float) -> np.ndarray:
        """A projection that looks to the left of ahead, which is y."""
        matrix = np.eye(4)
        matrix[2, :2] = -np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
        return matrix

    rig = dict(rear=180, right=-85, left=85, ahead=0, rear_left=140, rear_right=-140)
    order = ring_order({name: looking(degrees) for name, degrees in rig.items()})
    assert order == ['left', 'ahead', 'right', 'rear_left', 'rear', 'rear_right']


@pytest.mark.parametrize('count', [0, 1, 4, 7])
def test_conditions_stand_side_by_side_with_any_number_of_cameras(count):
    names = [f'eye_{index}' for index in range(count)]
    view = FrameView(
        points=np.zeros((5, 3)),
        images={name: np.zeros((10, 30, 3), np.uint8) for name in names},
        lidar2img=dict.fromkeys(names, np.eye(4)),
        note='nothing',
    )
    figure = render_views({'sound': view, 'damaged': view}, title='a title', width=800)
    panels = (*names, FROM_ABOVE, 'legend', 'heading')
    assert {axes.get_label() for axes in figure.axes} == {
        f'{heading} {panel}' for heading in ('sound', 'damaged') for panel in panels
    }
    assert pixels(figure).shape[1] == 800
    sound, damaged = (axes_of(figure, f'{h} {FROM_ABOVE}') for h in ('sound', 'damaged'))
    assert sound.get_position().x1 < damaged.get_position().x0
    assert sound.get_xlim() == damaged.get_xlim()


def test_heading_mark_points_to_the_front():
    # Looking along y, which is the box's forward.
    box = Box([1, 2, 3], [2, 6, 1.5], Quaternion(axis=[0, 0, 1], degrees=90))
    item = SceneBox('car', Kind.TRUTH, box)
    assert item.lines().shape == (13, 2, 3)
    assert item.lines()[-1] == pytest.approx(np.array([[1, 2, 2.25], [1, 5, 2.25]]))
    assert item.outline()[:2, 1] == pytest.approx(5)
    assert item.front()[..., 1] == pytest.approx(5)


def test_lines_behind_the_camera_are_cut():
    lines = np.array(
        [
            [[0.0, 0, 1], [0, 0, 2]],
            [[0.0, 0, -2], [1, 0, -1]],
            [[-1.0, 0, -0.9], [1, 0, 1.1]],
        ]
    )
    got = project(lines, INTRINSIC)
    # The second is behind; the third is cut where it is NEAR, at x = 0.
    assert got[0] == pytest.approx(np.full((2, 2), [50.0, 40.0]))
    assert got[1] == pytest.approx(np.array([[50.0, 40.0], [50 + 100 / 1.1, 40]]))
    assert lines[2, :, 2].mean() == pytest.approx(NEAR)


def test_unknown_sample(nusc):
    with pytest.raises(ValueError, match="has no sample 'nothing'; the first of its 12 is"):
        render_frame(nusc, 'nothing')


def test_predictions_of_other_samples(nusc, tmp_path):
    file = write_predictions(tmp_path / 'results.json', {nusc.sample[0]['token']: []})
    with pytest.raises(ValueError, match=r'predictions lack sample .*1 samples'):
        render_frame(nusc, nusc.sample[1]['token'], predictions=load_predictions(file))


@pytest.mark.parametrize('content', ['[]', '{}', 'no json', '{"results": {"a": [{}]}, "meta": {}}'])
def test_not_a_result_file(tmp_path, content):
    file = tmp_path / 'results.json'
    file.write_text(content)
    with pytest.raises(ValueError, match='is not an official nuScenes result file'):
        load_predictions(file)


def planned_sample(**metainfo) -> Det3DDataSample:
    sample = Det3DDataSample(metainfo=metainfo)
    sample.ego_plan = torch.tensor([[2.0, 0.0, 0.0], [4.0, 1.0, 0.1]])
    return sample


def test_paths_lie_on_the_ground_of_the_lidar_frame():
    """nuScenes' LiDAR looks to the right of the vehicle: its y is the vehicle's x."""
    lidar2ego = np.array([[0.0, 1, 0, 1], [-1, 0, 0, 0], [0, 0, 1, 1.8], [0, 0, 0, 1]])
    ego = dict(waypoints=torch.tensor([[3.0, 0, 0], [9, 9, 9]]), mask=torch.tensor([1.0, 0]))
    paths = paths_of(dict(ego=ego), planned_sample(lidar2ego=lidar2ego))
    assert [*paths] == ['driven', 'plan']
    np.testing.assert_allclose(paths['plan'], [[0, -1, -1.8], [0, 1, -1.8], [-1, 3, -1.8]])
    np.testing.assert_allclose(paths['driven'], [[0, -1, -1.8], [0, 2, -1.8]])
    assert [*paths_of({}, planned_sample(lidar2ego=lidar2ego))] == ['plan']
    assert paths_of({}, planned_sample()) == {}


def test_a_path_behind_the_camera_is_not_drawn():
    looks_along_y = np.array([[100.0, 50, 0, 0], [0, 40, -100, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    path = np.array([[0.0, -1, -1.8], [0, 2, -1.8], [1, 4, -1.8]])
    np.testing.assert_allclose(path_in_image(path, looks_along_y), [[50, 130], [75, 85]])


def test_paths_are_drawn_and_named():
    path = np.array([[0.0, 0, -1.8], [0, 8, -1.8]])
    view = FrameView(
        points=np.zeros((1, 3)),
        images={'CAM_FRONT': np.zeros((80, 100, 3), dtype=np.uint8)},
        lidar2img={'CAM_FRONT': np.eye(4)[[0, 2, 1, 3]]},
        paths={'plan': path},
    )
    figure = render_views({'': view}, title='')
    (line,) = axes_of(figure, FROM_ABOVE).lines
    np.testing.assert_allclose(line.get_xydata(), [[0, 0], [8, 0]])
    assert len(axes_of(figure, 'CAM_FRONT').lines) == 1
    assert [t.get_text() for t in axes_of(figure, 'legend').get_legend().get_texts()] == ['plan']
