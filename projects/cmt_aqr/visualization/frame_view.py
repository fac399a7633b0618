"""Frames as they are drawn: points, images and boxes, from a database or as a model was fed them.

Shapes: N points, V cameras.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from matplotlib.image import imread
from mmdet3d.structures import Det3DDataSample
from nuscenes import NuScenes
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import transform_matrix
from pyquaternion import Quaternion

from ..data_preparation.data_root import LIDAR_CHANNEL
from .scene_boxes import AGAINST_TRUTH, SceneBox, compare, sample_boxes, scene_boxes


class FrameView(NamedTuple):
    """Sensor data and boxes of one frame."""

    points: np.ndarray
    """(N, 3 or more), LiDAR frame, metres"""
    images: Mapping[str, np.ndarray]
    """(H, W, 3) uint8, RGB, by camera"""
    lidar2img: Mapping[str, np.ndarray]
    """(4, 4) projections to pixels, by camera"""
    boxes: Sequence[SceneBox] = ()
    """boxes in the LiDAR frame"""
    note: str = ''
    """line beside the heading of the frame"""
    paths: Mapping[str, np.ndarray] = MappingProxyType({})
    """(T, 3) positions on the ground in the LiDAR frame, from the vehicle on, by name"""


def fed_view(inputs: Mapping, sample: Det3DDataSample) -> FrameView:
    """Packed sample of a pipeline, after all augmentations and failures, without boxes.

    Args:
        inputs: ``points`` (N, 3 or more) and ``img`` (V, 3, H, W) in BGR, either may be missing.
        sample: with ``lidar2img`` and, for the names of cameras, ``camera_names``.
    """
    images = inputs.get('img', ())
    matrices = np.asarray(sample.metainfo['lidar2img'] if len(images) else ()).reshape(-1, 4, 4)
    names = sample.metainfo.get('camera_names') or [f'camera {i}' for i in range(len(images))]
    points = inputs['points'].cpu().numpy() if 'points' in inputs else np.zeros((0, 3))
    return FrameView(
        points=points,
        images={
            name: image.flip(0).permute(1, 2, 0).byte().cpu().numpy()
            for name, image in zip(names, images, strict=True)
        },
        lidar2img=dict(zip(names, matrices, strict=True)),
    )


def truth_of(sample: Det3DDataSample, classes: Sequence[str]) -> list[SceneBox] | None:
    """Ground truth of a packed sample in training or in a test; None without annotations."""
    annotated = sample.get('eval_ann_info')
    if annotated:
        return scene_boxes(annotated['gt_bboxes_3d'], annotated['gt_labels_3d'], classes)
    if 'bboxes_3d' in sample.get('gt_instances_3d', ()):
        instances = sample.gt_instances_3d
        return scene_boxes(instances.bboxes_3d, instances.labels_3d, classes)
    return None


def predictions_of(
    sample: Det3DDataSample, classes: Sequence[str], score_threshold: float
) -> list[SceneBox]:
    """Predicted boxes of at least this score."""
    found = sample.pred_instances_3d.to('cpu')
    found = found[found.scores_3d >= score_threshold]
    return scene_boxes(found.bboxes_3d, found.labels_3d, classes, found.scores_3d)


def paths_of(inputs: Mapping, sample: Det3DDataSample) -> dict[str, np.ndarray]:
    """Planned and driven paths of a sample, by name; empty without a plan.

    Args:
        inputs: packed; ``ego`` has the driven path.
        sample: with ``ego_plan`` (T, 3) and ``lidar2ego``; without them there is no path.
    """
    lidar2ego = sample.metainfo.get('lidar2ego')
    if 'ego_plan' not in sample or lidar2ego is None:
        return {}
    paths = {}
    if ego := inputs.get('ego'):
        paths['driven'] = ego['waypoints'][ego['mask'].bool()].cpu().numpy()
    paths['plan'] = sample.ego_plan.cpu().numpy()  # on top of the other
    to_lidar = np.linalg.inv(lidar2ego)
    return {name: _on_ground(path, to_lidar) for name, path in paths.items()}


def _on_ground(path: np.ndarray, ego2lidar: np.ndarray) -> np.ndarray:
    """(T, 3): x, y and yaw in the ego frame -> (T + 1, 3) positions in the LiDAR frame."""
    positions = np.zeros((len(path) + 1, 3))
    positions[1:, :2] = path[:, :2]
    return positions @ ego2lidar[:3, :3].T + ego2lidar[:3, 3]


def database_view(
    nusc: NuScenes, sample: Mapping, predictions: Sequence[DetectionBox] | None
) -> FrameView:
    """Keyframe of a database in nuScenes' format with its annotations.

    Args:
        nusc: the database.
        sample: record of the keyframe.
        predictions: predicted boxes in the global frame, compared with the annotations; or None.
    """
    channels = dict(sample['data'])
    lidar = channels[LIDAR_CHANNEL]
    cameras = {
        name: token
        for name, token in channels.items()
        if nusc.get('sample_data', token)['sensor_modality'] == 'camera'
    }
    boxes = sample_boxes(nusc, lidar, predictions or ())
    if predictions is not None:
        annotated = len(boxes) - len(predictions)
        boxes = compare(boxes[:annotated], boxes[annotated:], AGAINST_TRUTH)
    to_global = np.linalg.inv(_from_global(nusc, lidar))
    return FrameView(
        points=LidarPointCloud.from_file(nusc.get_sample_data_path(lidar)).points.T,
        images={name: imread(nusc.get_sample_data_path(token)) for name, token in cameras.items()},
        lidar2img={
            name: _intrinsic(nusc, token) @ _from_global(nusc, token) @ to_global
            for name, token in cameras.items()
        },
        boxes=boxes,
    )


def _from_global(nusc: NuScenes, token: str) -> np.ndarray:
    """(4, 4) from the global frame to a sensor's frame at the time of its reading."""
    reading = nusc.get('sample_data', token)
    pose = nusc.get('ego_pose', reading['ego_pose_token'])
    sensor = nusc.get('calibrated_sensor', reading['calibrated_sensor_token'])
    return _inverse(sensor) @ _inverse(pose)


def _inverse(pose: Mapping) -> np.ndarray:
    return transform_matrix(pose['translation'], Quaternion(pose['rotation']), inverse=True)


def _intrinsic(nusc: NuScenes, token: str) -> np.ndarray:
    """(4, 4) from a camera's frame to its pixels."""
    reading = nusc.get('sample_data', token)
    matrix = np.eye(4)
    sensor = nusc.get('calibrated_sensor', reading['calibrated_sensor_token'])
    matrix[:3, :3] = sensor['camera_intrinsic']
    return matrix
