"""Detections are those of a test of the dataset, and a failure damages what the model is fed."""

import numpy as np
import pytest
import torch
from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.registry import DATASETS
from mmengine.dataset import pseudo_collate
from mmengine.fileio import load
from mmengine.registry import DefaultScope
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from projects.cmt_aqr.apis import detect, init_detector, load_frames
from projects.cmt_aqr.apis.detection import attribute_of, describe_damage, within_class_ranges
from projects.cmt_aqr.usage_error import UsageError
from projects.cmt_aqr.visualization.scene_boxes import Kind, SceneBox


@pytest.fixture(scope='module')
def sound(detector, info_file):
    return detect(detector, load_frames(info_file, detector.cfg)[0])


@pytest.fixture(scope='module')
def official(detector, info_file, tmp_path_factory) -> list[dict]:
    """The boxes of the same frame in the result file of MMDetection3D's metric."""
    root = info_file.parent
    config = dict(detector.cfg.test_dataloader.dataset, data_root=str(root), indices=1)
    config['metainfo'] = dict(config['metainfo'], version='v1.0-mini')
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        dataset = DATASETS.build(config)
    with torch.no_grad():
        (result,) = detector.test_step(pseudo_collate([dataset[0]]))
    metric = NuScenesMetric(data_root=str(root), ann_file=str(info_file))
    metric.dataset_meta, metric.data_infos = dataset.metainfo, load(info_file)['data_list']
    found = dict(pred_instances_3d=result.pred_instances_3d, sample_idx=0)
    prefix = str(tmp_path_factory.mktemp('official'))
    files, _ = metric.format_results([found], dataset.metainfo['classes'], prefix)
    (boxes,) = load(files['pred_instances_3d'])['results'].values()
    return boxes


def test_within_the_class_ranges_boxes_are_those_of_the_official_result(
    detector, info_file, official, sound, first_info
):
    frame = load_frames(info_file, detector.cfg)[0]
    boxes = detect(detector, frame, class_ranges=True).as_dict()['boxes']
    assert len(boxes) == len(official) == len(sound.boxes)  # the world is small
    official = sorted(official, key=lambda box: -box['detection_score'])
    for found, expected in zip(boxes, official, strict=True):
        assert found['class'] == expected['detection_name']
        assert found['score'] == pytest.approx(expected['detection_score'])
        assert found['attribute'] == expected['attribute_name']
        assert np.hypot(*found['velocity']) == pytest.approx(
            np.hypot(*expected['velocity']), abs=1e-4
        )
        length, width, height = found['size']
        box = Box(
            found['center'], [width, length, height], Quaternion(axis=[0, 0, 1], angle=found['yaw'])
        )
        for matrix in (first_info['lidar_points']['lidar2ego'], first_info['ego2global']):
            matrix = np.array(matrix)
            box.rotate(Quaternion(matrix=matrix, rtol=1e-4, atol=1e-4))
            box.translate(matrix[:3, 3])
        np.testing.assert_allclose(box.center, expected['translation'], atol=1e-3)
        np.testing.assert_allclose(box.wlh, expected['size'], rtol=1e-5)
        assert abs(box.orientation.elements @ expected['rotation']) == pytest.approx(1, abs=1e-4)


def test_only_boxes_beyond_the_range_of_their_class_are_left_out():
    def item(name: str, y: float) -> SceneBox:
        return SceneBox(name, Kind.PREDICTION, Box([0, y, 0], [1, 1, 1], Quaternion()))

    ahead = np.eye(4)
    ahead[1, 3] = 1.0  # the LiDAR is 1 m ahead of the ego vehicle's origin
    boxes = [item('car', 48.9), item('car', 49.1), item('traffic_cone', 29.1), item('tram', 200)]
    info = dict(lidar_points=dict(lidar2ego=ahead))
    assert within_class_ranges(boxes, info) == [boxes[0], boxes[3]]
    assert within_class_ranges(boxes, dict(lidar_points={})) == [boxes[0], boxes[1], *boxes[2:]]


def test_a_folder_gives_the_boxes_of_its_frame(detector, folder, sound, info_file, first_info):
    """Its only cloud stands for the sweeps as well, so they are taken from the info file here."""
    frame = load_frames(folder, detector.cfg)[0]
    sweeps = load_frames(info_file, detector.cfg)[0].info['lidar_sweeps']
    frame.info.update(lidar_sweeps=sweeps, timestamp=first_info['timestamp'])
    found = detect(detector, frame)
    assert found.truth is None
    assert found.as_dict()['boxes'] == sound.as_dict()['boxes']


def test_the_threshold_is_the_lowest_score(detector, info_file, sound):
    boxes = detect(detector, info_file, score_threshold=0.3).boxes
    assert [item.box.score for item in boxes] == [
        item.box.score for item in sound.boxes if item.box.score >= 0.3
    ]
    assert 0 < len(boxes) < len(sound.boxes)


def test_a_failure_damages_what_is_shown(detector, info_file, sound):
    found = detect(detector, info_file, failure='lidar_drop_1')
    assert found.as_dict()['failure'] == 'lidar_drop_1'
    assert (len(found.fed.points), len(sound.fed.points) > 5000) == (0, True)
    assert describe_damage(sound.fed, found.fed) == f'points {len(sound.fed.points):,} → 0'
    dark = detect(detector, info_file, failure='view_drop')
    assert not any(image.any() for image in dark.fed.images.values())
    assert describe_damage(sound.fed, dark.fed) == 'black: all cameras'
    wrong = detect(detector, info_file, failure='misalignment_1')
    assert 'calibration wrong' in describe_damage(sound.fed, wrong.fed)
    assert describe_damage(sound.fed, sound.fed) == 'nothing: this frame is spared'


@pytest.mark.parametrize(
    ('failure', 'message'),
    [
        ('fogg_2', r"no condition 'fogg_2'.*did you mean fog_2\?"),
        ('object_failure_1', 'neither ann_info nor eval_ann_info'),
        ('stale_frame_1', 'it needs the previous keyframe, which only an info file has'),
    ],
)
def test_a_failure_that_cannot_act_is_one_line(detector, folder, failure, message):
    with pytest.raises(UsageError, match=message) as error:
        detect(detector, folder, failure=failure)
    assert '\n' not in str(error.value)


def test_a_damaged_image_is_one_line(detector, folder):
    (folder / 'CAM_BACK.jpg').write_text('no image')
    with pytest.raises(UsageError, match=r'image of camera CAM_BACK .* cannot be read') as error:
        detect(detector, folder)
    assert '\n' not in str(error.value)


def test_attributes_follow_from_class_and_speed():
    slow, fast = (0.1, 0.1, 0.0), (0.3, 0.0, 0.0)
    assert [attribute_of('bus', v) for v in (slow, fast)] == ['vehicle.stopped', 'vehicle.moving']
    assert attribute_of('bicycle', fast) == 'cycle.with_rider'
    assert attribute_of('pedestrian', slow) == 'pedestrian.standing'
    assert attribute_of('barrier', fast) == attribute_of('a class of another set', fast) == ''


def test_the_health_of_each_sensor_and_the_expert_are_told(folder, sound):
    found = detect(
        init_detector('cmt_tiny_streets_experts', device='cpu'), folder, failure='lidar_drop_1'
    )
    told = found.as_dict()
    assert [*told['health']] == ['lidar', *found.fed.images]
    assert told['health']['lidar'] < 0.1
    assert told['expert'] == 'lidar'
    assert not {'health', 'expert', 'plan'} & sound.as_dict().keys()
