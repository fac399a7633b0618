"""Recorder of one scene, which renders the sensors, writes their files and makes the records."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from .actors import Visible
from .cameras import PixelCounts, View, develop, ground_texture, make_cameras
from .lidar import Lidar
from .rig import CAMERAS, LIDAR
from .street import Scene
from .street import sample_scene as sample_street
from .tables import (
    Tables,
    calibrated_sensor,
    link,
    token,
    visibility_token,
    yaw_quaternion,
)
from .world import sample_scene as sample_plain

KEYFRAME_SECONDS = 0.5
# microseconds, as all timestamps of nuScenes
FIRST_TIMESTAMP = 1_532_402_927_000_000
SCENE_SECONDS = 60
JPEG_QUALITY = 92
LOCATION = 'synthetic'


@dataclass(frozen=True)
class SceneTask:
    """Input of a worker that records one scene.

    Attributes:
        name: official scene name, for example ``scene-0061``.
        entropy: integers that seed the scene, different for each scene.
        keyframes: number of samples, two per second.
        sweeps: LiDAR sweeps between the previous keyframe and each keyframe.
        image_size: width and height, pixels.
        draw_distance: metres.
        ignored_objects: objects of ignored classes in the scene.
        world: a name in :data:`.maker.WORLDS`.
        folder: data root to write into.
    """

    name: str
    entropy: tuple[int, ...]
    keyframes: int
    sweeps: int
    image_size: tuple[int, int]
    draw_distance: float
    ignored_objects: int
    world: str
    folder: Path

    def rng(self, *purpose: int) -> np.random.Generator:
        """Returns an independent random generator for each purpose."""
        return np.random.default_rng([*self.entropy, *purpose])

    @property
    def keyframe_times(self) -> np.ndarray:
        """(K,) seconds since the first keyframe."""
        return np.arange(self.keyframes) * KEYFRAME_SECONDS

    def make_scene(self) -> Scene:
        """Returns the layout of the scene."""
        sample = sample_street if self.world == 'streets' else sample_plain
        return sample(
            self.rng(0),
            self.keyframe_times,
            draw_distance=self.draw_distance,
            ignored_objects=self.ignored_objects,
        )


def record_scene(task: SceneTask) -> Tables:
    """Writes the files of a scene and returns its records."""
    return _Recorder(task).run()


class _Recorder:
    """State of the recording of one scene."""

    def __init__(self, task: SceneTask):
        self.task = task
        self.scene = task.make_scene()
        self.log = token('log', task.name)
        self.lidar = Lidar()
        self.cameras = make_cameras(*task.image_size)
        self.texture = ground_texture(task.rng(1))
        # Scenes are a minute apart, by their official number, so that file names are unique.
        self.start = FIRST_TIMESTAMP + int(task.name.split('-')[1]) * SCENE_SECONDS * 1_000_000
        self.samples, self.annotations, self.sample_data, self.poses = [], [], [], []

    def run(self) -> Tables:
        for keyframe in range(self.task.keyframes):
            self._record_sweeps(keyframe)
            self._record_keyframe(keyframe)
        link(self.samples)
        for mount in (*CAMERAS, LIDAR):
            sensor = token('calibrated_sensor', self.log, mount.channel)
            link(d for d in self.sample_data if d['calibrated_sensor_token'] == sensor)
        return dict(
            scene=[self._scene_record()],
            log=[self._log_record()],
            calibrated_sensor=[
                calibrated_sensor(mount, self.log, *self.task.image_size)
                for mount in (*CAMERAS, LIDAR)
            ],
            sample=self.samples,
            sample_data=self.sample_data,
            ego_pose=self.poses,
            sample_annotation=self.annotations,
            instance=self._link_instances(),
        )

    def _record_sweeps(self, keyframe: int) -> None:
        """Records the sweeps before a keyframe, also before the first one."""
        for i in range(1, self.task.sweeps + 1):
            time = (keyframe - 1 + i / (self.task.sweeps + 1)) * KEYFRAME_SECONDS
            points, _ = self.lidar.sweep(
                self.scene.visible(time), self.scene.weather, self.task.rng(2, keyframe, i)
            )
            self._record_lidar(keyframe, time, points, key=False)

    def _record_keyframe(self, keyframe: int) -> None:
        time = float(self.task.keyframe_times[keyframe])
        objects = self.scene.visible(time)
        self.samples.append(
            dict(
                token=self._sample_token(keyframe),
                timestamp=self._timestamp(time),
                scene_token=token('scene', self.task.name),
            )
        )
        rng = self.task.rng(2, keyframe, 0)
        points, point_counts = self.lidar.sweep(objects, self.scene.weather, rng)
        self._record_lidar(keyframe, time, points, key=True)
        view, pixels = View(self.scene, time, self.texture), PixelCounts()
        for camera in self.cameras:
            image, _ = camera.render(view, objects, pixels)
            path = self._add_data(camera.mount.channel, keyframe, time, key=True)
            _write_jpeg(path, develop(image, self.scene.weather.noise, rng))
        for item in (item for item in objects if item.actor.annotated):
            self._annotate(item, keyframe, time, point_counts.get(item.index, 0), pixels)

    def _record_lidar(self, keyframe: int, time: float, points: np.ndarray, *, key: bool) -> None:
        points.tofile(self._add_data(LIDAR.channel, keyframe, time, key=key))

    def _add_data(self, channel: str, keyframe: int, time: float, *, key: bool) -> Path:
        """Adds the records of one sensor reading; returns the path of its file."""
        stamp = self._timestamp(time)
        image = channel != LIDAR.channel
        width, height = self.task.image_size if image else (0, 0)
        name = f'{self.task.name}__{channel}__{stamp}.{"jpg" if image else "pcd.bin"}'
        filename = f'{"samples" if key else "sweeps"}/{channel}/{name}'
        reading = token('sample_data', self.task.name, channel, stamp)
        self.sample_data.append(
            dict(
                token=reading,
                sample_token=self._sample_token(keyframe),
                ego_pose_token=reading,
                calibrated_sensor_token=token('calibrated_sensor', self.log, channel),
                timestamp=stamp,
                fileformat='jpg' if image else 'pcd',
                is_key_frame=key,
                height=height,
                width=width,
                filename=filename,
            )
        )
        x, y, yaw = self.scene.path.poses(np.array([time]))[0]
        self.poses.append(
            dict(
                token=reading,
                timestamp=stamp,
                rotation=yaw_quaternion(yaw),
                translation=[float(x), float(y), 0.0],
            )
        )
        return self.task.folder / filename

    def _annotate(
        self, item: Visible, keyframe: int, time: float, points: int, pixels: PixelCounts
    ) -> None:
        actor = item.actor
        x, y, yaw = actor.track.poses(np.array([time]))[0]
        attribute = actor.attribute(time)
        length, width, height = map(float, actor.size)
        instance = token('instance', self.task.name, item.index)
        self.annotations.append(
            dict(
                token=token('sample_annotation', instance, keyframe),
                sample_token=self._sample_token(keyframe),
                instance_token=instance,
                visibility_token=visibility_token(pixels.share(item.index)),
                attribute_tokens=[token('attribute', attribute)] if attribute else [],
                translation=[float(x), float(y), height / 2],
                size=[width, length, height],
                rotation=yaw_quaternion(yaw),
                num_lidar_pts=points,
                num_radar_pts=0,
            )
        )

    def _link_instances(self) -> list[dict]:
        """Links the annotations of each object and returns the records of instances."""
        instances = []
        for index, actor in enumerate(self.scene.actors):
            if not actor.annotated:
                continue
            instance = token('instance', self.task.name, index)
            track = [a for a in self.annotations if a['instance_token'] == instance]
            link(track)
            instances.append(
                dict(
                    token=instance,
                    category_token=token('category', actor.kind.category),
                    nbr_annotations=len(track),
                    first_annotation_token=track[0]['token'],
                    last_annotation_token=track[-1]['token'],
                )
            )
        return instances

    def _scene_record(self) -> dict:
        return dict(
            token=token('scene', self.task.name),
            log_token=self.log,
            nbr_samples=len(self.samples),
            first_sample_token=self.samples[0]['token'],
            last_sample_token=self.samples[-1]['token'],
            name=self.task.name,
            description=self.scene.description,
        )

    def _log_record(self) -> dict:
        return dict(
            token=self.log,
            logfile=self.task.name,
            vehicle='synthetic',
            date_captured='2018-07-24',
            location=LOCATION,
        )

    def _sample_token(self, keyframe: int) -> str:
        return token('sample', self.task.name, keyframe)

    def _timestamp(self, time: float) -> int:
        return self.start + round(time * 1_000_000)


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    done, data = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise RuntimeError(f'OpenCV could not encode {path.name} as JPEG.')
    data.tofile(path)
