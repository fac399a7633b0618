"""Detection in a frame, sound or under a sensor failure, by the test pipeline of a config."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from mmdet3d.evaluation import NuScenesMetric
from mmdet3d.structures import Det3DDataSample
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DefaultScope
from nuscenes.eval.detection.config import config_factory

from ..cli.arguments import datasets_of
from ..cli.config_changes import add_failure
from ..datasets.reading import SampleError
from ..detector import CmtDetector
from ..evaluation.conditions import named_failure
from ..usage_error import UsageError
from ..visualization.damaged_frame import telling_seed
from ..visualization.frame_view import FrameView, fed_view, paths_of, predictions_of, truth_of
from ..visualization.scene_boxes import Kind, SceneBox
from .frames import Frame, load_frames

COORDINATES = (
    'frame of the LiDAR, as in the cloud; center is that of the box, yaw counter-clockwise'
)
UNITS = dict(center='m', size='m: length, width, height', yaw='rad', velocity='m/s')
# Speed in m/s above which MMDetection3D's nuScenes metric calls an object moving.
MOVING = 0.2


@dataclass(frozen=True)
class Detection:
    """Boxes that a detector found in a frame, and the input in which it found them."""

    frame: str
    """name of the frame"""
    failure: str | None
    """name and severity of the sensor failure"""
    boxes: Sequence[SceneBox]
    """in the LiDAR frame, by descending score"""
    truth: Sequence[SceneBox] | None
    """annotated boxes, of kind ``UNSEEN`` beyond the detector's range; None without annotations"""
    fed: FrameView
    """points and images after the test pipeline, without boxes"""
    plan: Sequence[Sequence[float]] | None = None
    """waypoints of a planner, 0.5 s apart: x, y (m) and yaw (rad) in the ego frame"""
    health: Mapping[str, float] | None = None
    """health that a monitor reports, from 0 to 1: of ``lidar``, and of each camera by its name"""
    expert: str | None = None
    """``lidar`` or ``camera`` where the expert of this sensor computed the boxes"""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :data:`COORDINATES` and :data:`UNITS` say what it means."""
        boxes = [box_as_dict(item) for item in self.boxes]
        parts = dict(plan=self.plan, health=self.health, expert=self.expert)
        some = {name: part for name, part in parts.items() if part is not None}
        return dict(frame=self.frame, failure=self.failure, boxes=boxes, **some)


@torch.no_grad()
def detect(
    model: CmtDetector,
    frame: Frame | str | os.PathLike,
    *,
    failure: str | None = None,
    score_threshold: float = 0.0,
    class_ranges: bool = False,
) -> Detection:
    """Detect objects in one frame.

    Args:
        model: detector with its config, from :func:`~.models.init_detector`.
        frame: a frame, or the path of a folder or an info file, see :func:`~.frames.load_frames`.
        failure: sensor failure with its severity, such as ``fog_2``; random ones are drawn so that
            they damage this frame, if they can.
        score_threshold: lowest score of a box.
        class_ranges: whether to leave out boxes beyond the range of their class, as nuScenes'
            evaluation does.

    Raises:
        UsageError: the path or the failure does not exist, the failure cannot act on the frame, or
            a file of the frame cannot be read.
    """
    if not isinstance(frame, Frame):
        frame = load_frames(frame, model.cfg)[0]
    sample = _fed_sample(model, frame, failure)
    (result,) = model.test_step(pseudo_collate([sample]))
    (dataset,) = datasets_of(model.cfg, 'test_dataloader')
    classes = dataset.metainfo.classes
    boxes = predictions_of(result, classes, score_threshold)
    if class_ranges:
        boxes = within_class_ranges(boxes, frame.info)
    fed = fed_view(sample['inputs'], sample['data_samples'])
    return Detection(
        frame=frame.name,
        failure=failure,
        boxes=sorted(boxes, key=lambda item: -item.box.score),
        truth=_within_range(truth_of(sample['data_samples'], classes), model),
        fed=fed._replace(paths=paths_of(sample['inputs'], result)),
        plan=result.ego_plan.tolist() if 'ego_plan' in result else None,
        health=_health_by_sensor(result, fed.images),
        expert=result.metainfo.get('expert'),
    )


def _health_by_sensor(result: Det3DDataSample, cameras: Iterable[str]) -> dict[str, float] | None:
    """Health that the monitor reports, by sensor name; None without a monitor."""
    if 'pred_health' not in result:
        return None
    report = result.pred_health
    by_camera = zip(cameras, report.cameras.tolist(), strict=True)
    return dict(lidar=report.lidar.item(), **dict(by_camera))


def box_as_dict(item: SceneBox) -> dict[str, Any]:
    """Plain data of a predicted box."""
    box = item.box
    width, length, height = box.wlh.tolist()
    return {
        'class': item.name,
        'score': float(box.score),
        'center': box.center.tolist(),
        'size': [length, width, height],
        'yaw': float(box.orientation.yaw_pitch_roll[0]),
        'velocity': box.velocity[:2].tolist(),
        'attribute': attribute_of(item.name, box.velocity),
    }


def attribute_of(name: str, velocity: Sequence[float]) -> str:
    """Attribute of an object by its class and speed, by the rule of ``NuScenesMetric``.

    It is empty for a class that has no attribute in nuScenes.
    """
    default = NuScenesMetric.DefaultAttribute.get(name, '')
    if np.hypot(*velocity[:2]) > MOVING:
        moving = {'vehicle': 'vehicle.moving', 'cycle': 'cycle.with_rider'}
        return moving.get(default.split('.')[0], default)
    return {'pedestrian': 'pedestrian.standing', 'bus': 'vehicle.stopped'}.get(name, default)


def describe_damage(sound: FrameView, damaged: FrameView) -> str:
    """What differs between the inputs of a sound and a damaged frame, in a line."""
    parts = []
    before, after = len(sound.points), len(damaged.points)
    if before != after:
        parts.append(f'points {before:,} → {after:,}')
    elif not np.array_equal(sound.points, damaged.points):
        parts.append('points changed')
    images = {
        name: image
        for name, image in damaged.images.items()
        if not np.array_equal(image, sound.images.get(name))
    }
    black = [name for name, image in images.items() if not image.any()]
    moved = [n for n, m in damaged.lidar2img.items() if not np.allclose(m, sound.lidar2img[n])]
    for what, names in (
        ('black', black),
        ('changed', [name for name in images if name not in black]),
        ('calibration wrong', moved),
    ):
        if names:
            all_of_them = len(names) == len(damaged.images)
            parts.append(f'{what}: {"all cameras" if all_of_them else ", ".join(names)}')
    return '; '.join(parts) or 'nothing: this frame is spared'


def _fed_sample(model: CmtDetector, frame: Frame, failure: str | None) -> dict:
    """Packed sample of the test pipeline of the model's config."""
    cfg = copy.deepcopy(model.cfg)
    try:
        with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
            if failure is not None:
                add_failure(cfg, _find_failure(frame, failure))
            (dataset,) = datasets_of(cfg, 'test_dataloader')
            return Compose(dataset.pipeline)(copy.deepcopy(frame.info))
    except SampleError as error:
        raise UsageError(str(error)) from error
    except (KeyError, ValueError, FileNotFoundError) as error:
        if failure is None:
            raise
        message = error.args[0] if isinstance(error, KeyError) else error  # without its quotes
        raise UsageError(f'failure {failure} on frame {frame.name}: {message}') from error


def _find_failure(frame: Frame, name: str) -> dict:
    """Config of a failure, with the first seed that damages the frame."""
    failure = named_failure(name, ann_file=frame.ann_file or '')
    if failure.get('ann_file') == '':
        raise ValueError('it needs the previous keyframe, which only an info file has')
    return dict(
        failure, seed=telling_seed(frame.info, [failure], list(frame.info.get('images', ())))
    )


def _within_range(truth: Sequence[SceneBox] | None, model: CmtDetector) -> list[SceneBox] | None:
    """Annotated boxes, of kind ``UNSEEN`` if the detector cannot see as far."""
    low, high = np.split(np.array(model.pts_bbox_head.point_cloud_range), 2)
    return truth and [
        item
        if (low[:2] <= item.box.center[:2]).all() and (item.box.center[:2] <= high[:2]).all()
        else replace(item, kind=Kind.UNSEEN)
        for item in truth
    ]


def within_class_ranges(boxes: Sequence[SceneBox], info: Mapping) -> list[SceneBox]:
    """Boxes within the range of their class around the ego vehicle."""
    ranges = config_factory('detection_cvpr_2019').class_range
    to_ego = np.array(info['lidar_points'].get('lidar2ego', np.eye(4)))
    places = (to_ego[:2, :3] @ item.box.center + to_ego[:2, 3] for item in boxes)
    return [
        item
        for item, place in zip(boxes, places, strict=True)
        if np.hypot(*place) <= ranges.get(item.name, np.inf)
    ]
