"""Data root in nuScenes' format, made from the info file of one keyframe.

mmdet3d ships single frames as demo data: an info file, images, one sweep, and no tables. The
official score reads tables, so they are made from the info file. Boxes are moved from the LiDAR
frame to the global frame by the devkit, so that its inverse gives the boxes of the info file.

Unknown values stay unknown, as the schema allows: no annotation has a predecessor, so the devkit's
velocities are NaN and mAVE is 1; no visibility is annotated; the map is empty.
"""

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from mmengine.fileio import load
from nuscenes.utils import splits
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from ..files import dump_json
from .data_root import LIDAR_CHANNEL as LIDAR
from .synthetic.tables import MAP_FILE, TABLE_NAMES, Record, Tables, static_tables, token
from .synthetic.taxonomy import CLASSES

VERSION = 'v1.0-mini'
# The official score reads scenes of the validation split only; file names have the real name.
SCENE = splits.mini_val[0]
MARK_FILE = 'single_frame.json'
INFO_FILES = ('nuscenes_infos_train.pkl', 'nuscenes_infos_val.pkl')
# In the order of `attr_label` in info files, in which 8 stands for no attribute.
ATTRIBUTES = (
    'cycle.with_rider',
    'cycle.without_rider',
    'pedestrian.moving',
    'pedestrian.standing',
    'pedestrian.sitting_lying_down',
    'vehicle.moving',
    'vehicle.parked',
    'vehicle.stopped',
)
SAME_BOX_METRES = 0.05


def make_frame_root(
    folder: str | os.PathLike, out: str | os.PathLike, *, copy: bool = False
) -> Path:
    """Makes a data root on which mmdet3d's dataset and metric and the official score run unchanged.

    The info files are written last, so an interrupted run leaves none and can be repeated.

    Args:
        folder: folder with an info file of mmdet3d's v1.1 format that has one frame, and the files
            of the frame.
        out: data root to make, or to make again; its info files for training and validation both
            have the one frame.
        copy: whether to copy the images and the sweep rather than link them.

    Returns:
        The data root.

    Raises:
        FileNotFoundError: the folder, its info file or a file of the frame is missing.
        FileExistsError: ``out`` was not made by this function.
        ValueError: there are several info files, or the info file does not have exactly one frame.
    """
    folder, out = Path(folder).resolve(), Path(out).resolve()
    info_file = _find_info_file(folder)
    info = load(info_file)
    frame = _only_frame(info, info_file)
    files = _sensor_files(frame, folder)
    _claim(out, folder)
    for stale in INFO_FILES:
        (out / stale).unlink(missing_ok=True)
    for channel, file in files.items():
        _provide(file, out / 'samples' / channel / file.name, copy=copy)
    (out / 'sweeps' / LIDAR).mkdir(parents=True, exist_ok=True)
    _write_map(out / MAP_FILE)
    tables = frame_tables(frame, info['metainfo']['categories'], _image_sizes(files))
    (out / VERSION).mkdir(exist_ok=True)
    for name in TABLE_NAMES:
        dump_json(out / VERSION / f'{name}.json', tables[name], indent=0)
    for name in INFO_FILES:
        shutil.copyfile(info_file, out / name)
    return out


def frame_tables(
    frame: dict, categories: dict[str, int], image_sizes: dict[str, tuple[int, int]]
) -> Tables:
    """Makes the thirteen tables of one frame.

    Args:
        frame: entry of ``data_list`` of the info file.
        categories: label of each class in the info file, -1 for a class that is not detected.
        image_sizes: height and width of each camera's image in pixels.
    """
    log = token('log', SCENE)
    sample = dict(
        token=frame['token'],
        timestamp=_microseconds(frame['timestamp']),
        scene_token=token('scene', SCENE),
        prev='',
        next='',
    )
    # All classes that are not detected share the label -1.
    names = {label: name for name, label in categories.items() if label >= 0}
    annotations, instances = [], []
    for index, instance in enumerate(frame['instances']):
        if instance['bbox_label_3d'] not in names:
            continue
        annotations.append(_annotation(index, instance, frame))
        instances.append(_instance(annotations[-1], names[instance['bbox_label_3d']]))
    sensors = _sensors(frame, image_sizes)
    modalities = {**dict.fromkeys(frame.get('images', ()), 'camera'), LIDAR: 'lidar'}
    return static_tables([log], modalities=modalities) | dict(
        scene=[_scene(sample, log)],
        log=[_log(log, frame)],
        sample=[sample],
        sample_data=[data for data, _, _ in sensors],
        ego_pose=[pose for _, pose, _ in sensors],
        calibrated_sensor=[calibration for _, _, calibration in sensors],
        sample_annotation=annotations,
        instance=instances,
    )


def _find_info_file(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f'frame folder {folder} does not exist; name one with an info file')
    found = sorted(folder.glob('*.pkl'))
    if not found:
        raise FileNotFoundError(f'frame folder {folder} has no info file (*.pkl)')
    if len(found) > 1:
        names = ', '.join(file.name for file in found)
        raise ValueError(f'frame folder {folder} has {len(found)} info files ({names}); keep one')
    return found[0]


def _only_frame(info: dict, info_file: Path) -> dict:
    if not isinstance(info, dict) or 'data_list' not in info or 'metainfo' not in info:
        raise ValueError(f"{info_file} is not of mmdet3d's v1.1 format (metainfo, data_list)")
    if len(info['data_list']) != 1:
        raise ValueError(f'{info_file} must hold one frame, but holds {len(info["data_list"])}')
    return info['data_list'][0]


def _sensor_files(frame: dict, folder: Path) -> dict[str, Path]:
    """Returns the existing file of each channel."""
    names = {channel: image['img_path'] for channel, image in frame.get('images', {}).items()}
    files = {
        c: folder / n for c, n in {**names, LIDAR: frame['lidar_points']['lidar_path']}.items()
    }
    for channel, file in files.items():
        if not file.is_file():
            raise FileNotFoundError(f'{file} of {channel} is missing; the info file names it')
    return files


def _claim(out: Path, folder: Path) -> None:
    """Makes ``out`` and marks it as made by this module."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f'{out} is a file; name a folder')
    if out.is_dir() and any(out.iterdir()) and not (out / MARK_FILE).is_file():
        raise FileExistsError(
            f'{out} was not made by this tool (it has no {MARK_FILE}); choose another folder'
        )
    out.mkdir(parents=True, exist_ok=True)
    dump_json(out / MARK_FILE, dict(frame=str(folder)))


def _provide(file: Path, target: Path, *, copy: bool) -> None:
    """Links a file at ``target``, or copies it on request or where links are not possible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if not copy:
        try:
            target.symlink_to(file)
            return
        except OSError:
            pass  # a file system without links
    shutil.copyfile(file, target)


def _write_map(path: Path) -> None:
    """Writes a map of one pixel, since the devkit requires a map file."""
    path.parent.mkdir(exist_ok=True)
    if not cv2.imwrite(str(path), np.zeros((1, 1), np.uint8)):
        raise OSError(f'{path} could not be written')


def _image_sizes(files: dict[str, Path]) -> dict[str, tuple[int, int]]:
    """Reads height and width of each camera's image in pixels."""
    sizes = {}
    for channel, file in files.items():
        if channel == LIDAR:
            continue
        image = cv2.imread(str(file))
        if image is None:
            raise ValueError(f'{file} of {channel} is not a readable image')
        sizes[channel] = image.shape[:2]
    return sizes


def _sensors(
    frame: dict, image_sizes: dict[str, tuple[int, int]]
) -> list[tuple[Record, Record, Record]]:
    """Makes the records of sample_data, ego_pose and calibrated_sensor for each sensor."""
    lidar, ego2global = frame['lidar_points'], np.array(frame['ego2global'])
    lidar2ego = np.array(lidar['lidar2ego'])
    data = _sample_data(frame, LIDAR, lidar['lidar_path'], frame['timestamp'])
    records = [_sensor_records(data, LIDAR, ego2global, lidar2ego, [])]
    for channel, image in frame.get('images', {}).items():
        # The car moves between LiDAR and camera; this pose agrees with `lidar2cam`.
        cam2global = ego2global @ lidar2ego @ np.linalg.inv(image['lidar2cam'])
        cam2ego = np.array(image['cam2ego'])
        data = _sample_data(
            frame, channel, image['img_path'], image['timestamp'], image_sizes[channel]
        )
        intrinsic = np.array(image['cam2img'])[:3, :3].tolist()
        pose = cam2global @ np.linalg.inv(cam2ego)
        records.append(_sensor_records(data, channel, pose, cam2ego, intrinsic))
    return records


def _sample_data(
    frame: dict, channel: str, path: str, seconds: float, size: tuple[int, int] = (0, 0)
) -> Record:
    """Makes the record of a sensor reading; ``size`` is height and width of an image."""
    name = token('sample_data', frame['token'], channel)
    return dict(
        token=name,
        sample_token=frame['token'],
        ego_pose_token=name,
        calibrated_sensor_token=token('calibrated_sensor', SCENE, channel),
        timestamp=_microseconds(seconds),
        fileformat='pcd' if channel == LIDAR else 'jpg',
        is_key_frame=True,
        height=size[0],
        width=size[1],
        filename=f'samples/{channel}/{Path(path).name}',
        prev='',
        next='',
    )


def _sensor_records(
    data: Record, channel: str, ego2global: np.ndarray, sensor2ego: np.ndarray, intrinsic: list
) -> tuple[Record, Record, Record]:
    pose = dict(token=data['ego_pose_token'], timestamp=data['timestamp'], **_pose(ego2global))
    calibration = dict(
        token=data['calibrated_sensor_token'],
        sensor_token=token('sensor', channel),
        camera_intrinsic=intrinsic,
        **_pose(sensor2ego),
    )
    return data, pose, calibration


def _pose(matrix: np.ndarray) -> Record:
    """(4, 4) -> translation in metres and rotation (w, x, y, z)."""
    return dict(translation=matrix[:3, 3].tolist(), rotation=_rotation(matrix).elements.tolist())


def _rotation(matrix: np.ndarray) -> Quaternion:
    """Returns the rotation of a float32 matrix, which is orthogonal to about seven digits."""
    return Quaternion(matrix=matrix[:3, :3], rtol=1e-5, atol=1e-5).normalised


def _annotation(index: int, instance: dict, frame: dict) -> Record:
    """Makes the record of an instance, from gravity centre, length, width, height and yaw."""
    x, y, z, length, width, height, yaw = map(float, instance['bbox_3d'])
    box = Box([x, y, z], [width, length, height], Quaternion(axis=[0, 0, 1], radians=yaw))
    for matrix in (frame['lidar_points']['lidar2ego'], frame['ego2global']):
        matrix = np.array(matrix)
        box.rotate(_rotation(matrix))
        box.translate(matrix[:3, 3])
    attribute = _attribute(instance, frame)
    return dict(
        token=token('sample_annotation', frame['token'], index),
        sample_token=frame['token'],
        instance_token=token('instance', frame['token'], index),
        visibility_token='',
        attribute_tokens=[token('attribute', attribute)] if attribute else [],
        translation=box.center.tolist(),
        size=box.wlh.tolist(),
        rotation=box.orientation.elements.tolist(),
        num_lidar_pts=int(instance['num_lidar_pts']),
        num_radar_pts=int(instance['num_radar_pts']),
        prev='',
        next='',
    )


def _attribute(instance: dict, frame: dict) -> str | None:
    """Finds the attribute of an instance, which info files keep only with the cameras."""
    centre = np.array([*instance['bbox_3d'][:3], 1.0])
    for channel, seen in frame.get('cam_instances', {}).items():
        in_camera = (np.array(frame['images'][channel]['lidar2cam']) @ centre)[:3]
        for candidate in seen:
            if np.linalg.norm(candidate['bbox_3d'][:3] - in_camera) < SAME_BOX_METRES:
                label = candidate['attr_label']
                return ATTRIBUTES[label] if label < len(ATTRIBUTES) else None
    return None


def _instance(annotation: Record, name: str) -> Record:
    category = next(c.category for c in CLASSES if c.name == name)
    return dict(
        token=annotation['instance_token'],
        category_token=token('category', category),
        nbr_annotations=1,
        first_annotation_token=annotation['token'],
        last_annotation_token=annotation['token'],
    )


def _scene(sample: Record, log: str) -> Record:
    return dict(
        token=sample['scene_token'],
        log_token=log,
        nbr_samples=1,
        first_sample_token=sample['token'],
        last_sample_token=sample['token'],
        name=SCENE,
        description='One keyframe of nuScenes, under the name of a validation scene.',
    )


def _log(log: str, frame: dict) -> Record:
    """Makes the record of the log, from file names such as n015-2018-07-24-11-22-45+0800__..."""
    logfile = Path(frame['lidar_points']['lidar_path']).name.split('__')[0]
    vehicle, _, moment = logfile.partition('-')
    return dict(
        token=log,
        logfile=logfile,
        vehicle=vehicle,
        date_captured=moment[:10],
        location='unknown',
    )


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
