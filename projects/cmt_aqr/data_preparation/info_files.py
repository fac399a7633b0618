"""mmdet3d's info files of a data root in nuScenes' format, and its object database.

The info files are made by mmdet3d's own converter, scripts below ``mmdet3d/.mim/tools`` of its
wheel. The second half of the converter reads ``./data/nuscenes`` whatever the data root, and its
first half leaves files of the old format behind if it stops between the two. So it runs in a
temporary folder with a ``data/nuscenes`` of links, and all results move into the data root
together. Its output goes to the log at level DEBUG; its progress bars stay.
"""

import importlib.util
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from unittest import mock

import mmdet3d
from mmengine.fileio import dump, load
from mmengine.logging import print_log
from nuscenes.utils import splits as official_splits

from ..datasets.infos import Infos, choose, read_infos
from ..files import replacing
from .data_root import LIDAR_CHANNEL, check_tables, is_made, link_tables
from .object_database import collect_objects
from .old_infos import check_old, is_old

INFO_SPLITS = {
    'v1.0-mini': ('train', 'val'),
    'v1.0-trainval': ('train', 'val'),
    'v1.0-test': ('test',),
}
# Names in the devkit of the scenes of each split.
_OFFICIAL = {
    'v1.0-mini': dict(train='mini_train', val='mini_val'),
    'v1.0-trainval': dict(train='train', val='val'),
    'v1.0-test': dict(test='test'),
}
# Channels that mmdet3d's converter reads.
_CAMERAS = (
    'CAM_FRONT', 'CAM_FRONT_RIGHT', 'CAM_FRONT_LEFT', 'CAM_BACK', 'CAM_BACK_LEFT', 'CAM_BACK_RIGHT',
)  # fmt: skip
OBJECTS_FOLDER = '{prefix}_objects'
# The devkit's file of one's own splits, in the folder of the tables.
SPLITS_FILE = 'splits.json'


def create_info_files(
    root: str | os.PathLike,
    *,
    version: str,
    prefix: str = 'nuscenes',
    max_sweeps: int = 10,
    out: str | os.PathLike | None = None,
    splits: str | os.PathLike | None = None,
    camera_boxes: bool = True,
) -> list[Path]:
    """Writes ``{prefix}_infos_train.pkl`` and ``{prefix}_infos_val.pkl`` into a data root.

    Beyond mmdet3d's fields, each entry has the name of its ``scene``. Not thread-safe: it changes
    the working folder of the process and redirects standard output.

    Args:
        root: data root in nuScenes' format.
        version: ``v1.0-mini``, ``v1.0-trainval``, or ``v1.0-test`` with its one file,
            ``{prefix}_infos_test.pkl``.
        prefix: start of the file names.
        max_sweeps: number of past LiDAR sweeps listed for each keyframe.
        out: folder to write into in place of ``root``; it becomes a data root of its own, with
            links to the data.
        splits: JSON file with the names of the scenes of each split, such as
            ``{"train": [...], "val": [...]}``; scenes under other names are left out. By default
            ``splits.json`` in the folder of the tables, the devkit's place for it, or else the
            official splits.
        camera_boxes: whether to compute mmdet3d's ``cam_instances``, boxes in each image for
            detectors of single images, which takes most of the time; without, they are empty.

    Returns:
        The written files, in mmdet3d's v1.1 format.

    Raises:
        FileNotFoundError: the data root does not exist, has no tables of the version, or lacks a
            cloud of a scene that has others.
        FileExistsError: an entry of ``out`` has the name of a link.
        PermissionError: the data root is read-only, and there is no ``out``.
        ValueError: nuScenes does not have the version, scenes and splits do not agree, or the rig
            has other cameras.
    """
    root = _writable_root(root, version, out)
    names = _info_names(version, prefix)
    _check_cameras(root / version / 'sensor.json')
    scenes = _scenes_by_split(root / version, version, splits)
    with _linked_root(root) as linked:
        _convert(linked, version, prefix, max_sweeps, names, scenes, camera_boxes)
        return [(linked / name).resolve().rename(root / name) for name in names]


def create_object_database(
    root: str | os.PathLike,
    *,
    version: str,
    prefix: str = 'nuscenes',
    max_sweeps: int = 10,
    out: str | os.PathLike | None = None,
    splits: str | os.PathLike | None = None,
    camera_boxes: bool = True,
    lidar_only: bool = False,
    workers: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Writes ``{prefix}_objects``, the training objects with points and image patches.

    ``JointObjectSample`` pastes them. Existing info files of this version are used, or else made
    first. An interrupted call continues where it stopped when it is repeated.

    Args:
        root, version, prefix, max_sweeps, out, splits, camera_boxes: see
            :func:`create_info_files`.
        lidar_only: whether to leave out image patches; no images are read.
        workers: number of processes, which does not change the result.
        overwrite: whether to replace a finished database, or one of other samples.

    Returns:
        The written files, info files first.

    Raises:
        FileNotFoundError: see :func:`create_info_files`; or there are no images.
        FileExistsError: see there; or the folder has a database of other samples.
        ValueError: nuScenes does not have the version, or it has no annotations.
    """
    names = _info_names(version, prefix)
    if version == 'v1.0-test':
        raise ValueError(f'{version} has no annotations to make an object database of')
    root = _writable_root(root, version, out)
    if not lidar_only and {entry.name for entry in (root / 'samples').iterdir()} <= {LIDAR_CHANNEL}:
        raise FileNotFoundError(
            f'data root {root} has no images in samples; for a database of points alone: '
            '--lidar-only'
        )
    made = []
    infos = _read_infos([root / name for name in names], version)
    if infos is None:
        options = dict(version=version, prefix=prefix, max_sweeps=max_sweeps, splits=splits)
        made = create_info_files(root, camera_boxes=camera_boxes, **options)
        infos = read_infos(made[0])
    else:
        print_log(f'keeping {" and ".join(names)}', logger='current')
    folder = root / OBJECTS_FOLDER.format(prefix=prefix)
    prefixes = {camera: f'samples/{camera}' for camera in infos.entries[0]['images']}
    prefixes.update(pts=f'samples/{LIDAR_CHANNEL}', sweeps=f'sweeps/{LIDAR_CHANNEL}')
    options = dict(cameras=not lidar_only, workers=workers, overwrite=overwrite)
    if collect_objects(root, folder, infos, data_prefix=prefixes, **options):
        made.append(folder)
    return made


def collect_own_objects(
    root: str | os.PathLike,
    name: str,
    *,
    out: str | os.PathLike | None = None,
    lidar_only: bool = False,
    workers: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Writes ``{stem}_objects``, the objects of an info file that is not of nuScenes.

    Args:
        root: folder to which the paths in the info file are relative.
        name: the info file in it.
        out: folder to write into in place of ``root``.
        lidar_only, workers, overwrite: see :func:`create_object_database`.

    Returns:
        The folder, if it was made.

    Raises:
        FileExistsError: the folder has a database of other samples.
        PermissionError: the data root is read-only, and there is no ``out``.
    """
    root = Path(root).resolve()
    place = _writable(root) if out is None else Path(out).resolve()
    place.mkdir(parents=True, exist_ok=True)
    folder = place / OBJECTS_FOLDER.format(prefix=Path(name).stem)
    options = dict(cameras=not lidar_only, workers=workers, overwrite=overwrite)
    made = collect_objects(root, folder, read_infos(root / name), **options)
    return [folder] if made else []


def update_info_file(
    root: str | os.PathLike, file: str | os.PathLike, *, out: str | os.PathLike | None = None
) -> Path:
    """Converts an info file of MMDetection3D's format before 1.1 to format 1.1.

    The new file has the same name in the data root. An old file in the data root is kept with the
    suffix ``.old``. Not thread-safe, as :func:`create_info_files`.

    Args:
        root: data root of the info file.
        file: the old info file.
        out: see :func:`create_info_files`.

    Returns:
        The new file.

    Raises:
        FileNotFoundError: the file or the data root does not exist, or the data root has no tables
            of the file's version.
        FileExistsError: another file has the name of the new file, or of the kept one.
        ValueError: the file has another format, or one before version 1.0.
    """
    file = Path(file).resolve()
    if not file.is_file():
        raise FileNotFoundError(f'info file {file} does not exist')
    if not is_old(file):
        raise ValueError(
            f"{file} does not have MMDetection3D's format before 1.1: nothing to convert"
        )
    infos = load(file)
    check_old(infos, file)
    root = _writable_root(root, infos['metadata']['version'], out)
    target, kept = root / file.name, root / f'{file.name}.old'
    in_the_way = kept if target == file else target
    if in_the_way.exists():
        raise FileExistsError(f'{in_the_way} exists already: move it elsewhere')
    with _linked_root(root) as linked:
        with _quiet(f'converting {file}'):
            _load_script('update_infos_to_v2').update_pkl_infos('nuscenes', str(linked), str(file))
        if target == file:
            file.rename(kept)
        return (linked / file.name).resolve().rename(target)


def info_files(root: str | os.PathLike, version: str, prefix: str = 'nuscenes') -> list[Path]:
    """Paths of the info files of a data root, whether they exist or not.

    Raises:
        ValueError: nuScenes does not have the version.
    """
    return [Path(root) / name for name in _info_names(version, prefix)]


def _info_names(version: str, prefix: str) -> list[str]:
    if version not in INFO_SPLITS:
        raise ValueError(f'version must be one of {", ".join(INFO_SPLITS)}, got {version!r}')
    return [f'{prefix}_infos_{split}.pkl' for split in INFO_SPLITS[version]]


def _writable_root(root: str | os.PathLike, version: str, out: str | os.PathLike | None) -> Path:
    """Returns the data root to write into: ``root``, or ``out`` with links to it."""
    root = check_tables(root, version)
    return _writable(root) if out is None else link_tables(root, Path(out))


def _writable(root: Path) -> Path:
    if not os.access(root, os.W_OK):
        raise PermissionError(f'data root {root} is read-only; to write elsewhere: --out FOLDER')
    return root


def _read_infos(files: list[Path], version: str) -> Infos | None:
    """Reads the first file; None if a file is missing or has another version or format."""
    if not all(file.is_file() for file in files) or is_old(files[0]):
        return None
    same = load(files[0])['metainfo'].get('version') == version
    return read_infos(files[0]) if same else None


def _scenes_by_split(
    tables: Path, version: str, file: str | os.PathLike | None
) -> dict[str, list[str]]:
    """Names of the scenes of each split of a version.

    Raises:
        ValueError: a split or a scene does not exist, or a scene has no split.
    """
    present = [scene['name'] for scene in json.loads((tables / 'scene.json').read_text())]
    default = tables / SPLITS_FILE
    if file is None and not default.is_file():
        named = {split: getattr(official_splits, key) for split, key in _OFFICIAL[version].items()}
        source = 'the official splits'
    else:
        file = Path(file or default)
        source = f'splits file {file}'
        try:
            named = json.loads(file.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f'{source} is no JSON: {error}') from None
        choose(list(_OFFICIAL[version]), named, source)
        for scenes in named.values():
            choose(scenes, present, f'{tables / "scene.json"}, whose scenes {source} names,')
    unknown = sorted(set(present) - {name for scenes in named.values() for name in scenes})
    if unknown:
        raise ValueError(
            f'{len(unknown)} scenes of {tables} are in none of {source}: '
            f'{", ".join(unknown[:5])}{", ..." if len(unknown) > 5 else ""}; name every scene in '
            f'{default}, such as {{"train": [...], "val": [...], "unused": [...]}}'
        )
    return {split: list(named[split]) for split in _OFFICIAL[version]}


def _check_cameras(file: Path) -> None:
    """Check that mmdet3d's converter, which knows nuScenes' channels, would read all cameras."""
    sensors = json.loads(file.read_text())
    found = sorted(row['channel'] for row in sensors if row['modality'] == 'camera')
    if found != sorted(_CAMERAS):
        raise ValueError(
            f'{file} has the cameras {", ".join(found)}, but the converter of MMDetection3D reads '
            f'{", ".join(_CAMERAS)}: for another rig write an info file, see docs/own_data.md'
        )


def _convert(
    linked: Path,
    version: str,
    prefix: str,
    max_sweeps: int,
    names: list[str],
    scenes: Mapping[str, Sequence[str]],
    camera_boxes: bool,
) -> None:
    """Runs both halves of the converter: info files of the old format, and their conversion."""
    replaced = {_OFFICIAL[version][split]: list(members) for split, members in scenes.items()}
    with (
        _quiet(f'reading the {version} tables'),
        mock.patch.multiple(official_splits, **replaced),
    ):
        _load_script('nuscenes_converter').create_nuscenes_infos(
            str(linked), prefix, version=version, max_sweeps=max_sweeps
        )
    updater = _load_script('update_infos_to_v2')
    if not camera_boxes:
        updater.generate_nuscenes_camera_instances = lambda info, nusc: {}
    for name in names:
        with _quiet(f'writing {name}'):
            updater.update_pkl_infos('nuscenes', str(linked), str(linked / name))
    scene_of = _scene_names(linked / version)
    for name, members in zip(names, scenes.values(), strict=True):
        _keep_scenes(linked / name, scene_of, members)


def _scene_names(tables: Path) -> dict[str, str]:
    """Name of the scene of each sample, by its token."""
    rows = {name: json.loads((tables / f'{name}.json').read_text()) for name in ('scene', 'sample')}
    names = {scene['token']: scene['name'] for scene in rows['scene']}
    return {sample['token']: names[sample['scene_token']] for sample in rows['sample']}


def _keep_scenes(file: Path, scene_of: Mapping[str, str], scenes: Sequence[str]) -> None:
    """Names the scene of each entry, and removes those of other scenes.

    mmdet3d's converter puts every scene that is not for training into validation.
    """
    content = load(file)
    for entry in content['data_list']:
        entry['scene'] = scene_of[entry['token']]
    content['data_list'] = [entry for entry in content['data_list'] if entry['scene'] in scenes]
    with replacing(file) as temporary:
        dump(content, temporary, file_format='pkl')


@contextmanager
def _quiet(step: str) -> Iterator[None]:
    """Logs the name of a step, and its standard output at level DEBUG."""
    print_log(step, logger='current')
    chatter = io.StringIO()
    try:
        with redirect_stdout(chatter):
            yield
    finally:
        print_log(chatter.getvalue(), logger='current', level=logging.DEBUG)


def _load_script(name: str) -> ModuleType:
    """Imports a converter script of the installed mmdet3d."""
    folder = Path(mmdet3d.__file__).parent / '.mim' / 'tools' / 'dataset_converters'
    spec = importlib.util.spec_from_file_location(f'mmdet3d_{name}', folder / f'{name}.py')
    if spec is None or not (folder / f'{name}.py').is_file():
        raise FileNotFoundError(f'{folder} lacks {name}.py; install mmdet3d from its wheel')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _linked_root(root: Path) -> Iterator[Path]:
    """Enters a temporary working folder with a ``data/nuscenes`` of links to the data."""
    entries = list(root.iterdir())
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix='.infos-', dir=root) as folder:
        linked = Path('data/nuscenes')
        (folder / linked).mkdir(parents=True)
        for entry in entries:
            if not is_made(entry):
                (folder / linked / entry.name).symlink_to(entry)
        os.chdir(folder)
        try:
            yield linked
        except FileNotFoundError as error:
            if f'{linked}/' not in str(error):
                raise
            # Names the file of the user rather than its link.
            message = str(error).replace(f'{linked}/', f'{root}/')
            raise FileNotFoundError(
                f'{message}: the download is not complete; load the rest, or leave its scene out '
                f'by {SPLITS_FILE} in the folder of the tables'
            ) from error
        finally:
            os.chdir(before)
