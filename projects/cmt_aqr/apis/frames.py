"""Frames from folders with a calibration file, and from info files of MMDetection3D."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mmdet3d.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DefaultScope

from ..cli.arguments import datasets_of
from ..datasets import CmtDataset
from ..datasets.failures.stale import log_name
from ..datasets.infos import Infos, read_infos
from ..usage_error import UsageError, did_you_mean
from .calibration import SUFFIXES, read_calibration


class Frame(NamedTuple):
    """A frame that has not been loaded yet."""

    name: str
    """token, as a name of a file, or the name of the folder"""
    info: dict
    """sample as the test pipeline of a config takes it"""
    ann_file: str | None
    """info file with the keyframes before it; None for a folder"""


def load_frames(
    path: str | os.PathLike, cfg: Config, *, index: int = 0, scene: str | None = None
) -> list[Frame]:
    """Frames for the test pipeline of a config.

    Args:
        path: info file or calibration file, or a folder with one: `calibration.json` or `.yaml`,
            or a single `.pkl`.
        cfg: config of the detector.
        index: index of the frame in the info file.
        scene: name of a scene of the info file, for all of its frames in the order of time.

    Raises:
        UsageError: the path does not exist or is neither, or has no such frame or scene.
    """
    file = _find_file(Path(path))
    if file.suffix in SUFFIXES and not _is_info_file(file):
        entries = [read_calibration(file)]
        if scene is not None or index:
            raise UsageError(f'{path} has one frame only: an index or a scene needs an info file')
        _check_channels(file, entries[0], cfg)
        return [_frame(_dataset(cfg, file.parent, entries[0]), entries[0], None)]
    metainfo, entries = _read_infos(file)
    if scene is not None:
        entries = _frames_of_scene(entries, scene, file)
    elif not 0 <= index < len(entries):
        raise UsageError(f'index must be 0 to {len(entries) - 1} in {file}, got {index}')
    else:
        entries = [entries[index]]
    dataset = _dataset(cfg, file.parent, entries[0])
    if isinstance(dataset, CmtDataset):
        dataset.declare(metainfo)
    return [_frame(dataset, entry, str(file)) for entry in entries]


def _find_file(path: Path) -> Path:
    """Info or calibration file at a path.

    Raises:
        UsageError: there is none, or several.
    """
    if not path.exists():
        siblings = [str(entry) for entry in path.parent.glob('*')]
        hint = did_you_mean(str(path), siblings) or f' (in {Path.cwd()})'
        raise UsageError(f'{path} does not exist{hint}')
    if path.is_file():
        if path.suffix not in ('.pkl', *SUFFIXES):
            raise UsageError(f'{path} is neither an info file (.pkl) nor a calibration file')
        return path
    calibrations = [path / f'calibration{suffix}' for suffix in SUFFIXES]
    found = [file for file in calibrations if file.is_file()] or sorted(path.glob('*.pkl'))
    if not found:
        raise UsageError(
            f'{path} has neither {", ".join(file.name for file in calibrations)} nor an info file '
            '(.pkl); docs/inference.md has an example of a calibration file'
        )
    if len(found) > 1:
        raise UsageError(f'{path}: name one of {", ".join(file.name for file in found)}')
    return found[0]


def _is_info_file(file: Path) -> bool:
    """Whether a JSON file is an info file, and not a calibration file."""
    return file.suffix == '.json' and b'"data_list"' in file.read_bytes()


def _read_infos(file: Path) -> Infos:
    try:
        return read_infos(file)
    except Exception:  # whatever unpickling of an unknown file raises
        raise UsageError(f"{file} is not an info file of MMDetection3D's format 1.1") from None


def _frames_of_scene(entries: Sequence[dict], scene: str, file: Path) -> list[dict]:
    """Entries of a scene in the order of time."""
    names = _scene_names(entries, file.parent)
    chosen = [entry for entry, name in zip(entries, names, strict=True) if name == scene]
    if not chosen:
        hint = did_you_mean(scene, names) or f'; known: {", ".join(dict.fromkeys(names))}'
        raise UsageError(f'{file} has no scene {scene!r}{hint}')
    return sorted(chosen, key=lambda entry: entry.get('timestamp', 0))


def _scene_names(entries: Sequence[dict], root: Path) -> list[str]:
    """Name of the scene of each entry, from nuScenes' tables beside the info file, or else its log.

    Raises:
        UsageError: neither is known.
    """
    for folder in sorted(file.parent for file in root.glob('*/scene.json')):
        scenes = {scene['token']: scene['name'] for scene in _table(folder, 'scene')}
        names = {
            sample['token']: scenes[sample['scene_token']] for sample in _table(folder, 'sample')
        }
        if all(entry.get('token') in names for entry in entries):
            return [names[entry['token']] for entry in entries]
    try:
        return [log_name(entry) for entry in entries]
    except ValueError as error:
        raise UsageError(str(error)) from None


def _table(folder: Path, name: str) -> list[dict]:
    return json.loads((folder / f'{name}.json').read_text())


def _check_channels(file: Path, entry: dict, cfg: Config) -> None:
    """Raise a UsageError for a cloud that the loader of the test pipeline would misread."""
    (dataset,) = datasets_of(cfg, 'test_dataloader')
    given = entry['lidar_points']['num_pts_feats']
    for step in dataset.pipeline:
        if step.get('load_dim', given) != given:
            raise UsageError(
                f'{file}: lidar: num_pts_feats is {given}, but {step.type} of this model reads '
                f'{step.load_dim} values of each point: x, y, z, intensity, ring'
            )


def _dataset(cfg: Config, root: Path, entry: dict) -> BaseDataset:
    """Test dataset of a config for files below a root, without samples of its own.

    A file that is not in the folder of its sensor is looked for in the root.
    """
    (config,) = datasets_of(cfg, 'test_dataloader')
    prefix = dict(config.get('data_prefix', {}))
    cloud = entry.get('lidar_points', {}).get('lidar_path')
    if cloud is not None and not Path(root, prefix.get('pts', ''), cloud).is_file():
        prefix = dict.fromkeys(prefix, '')
    changes = dict(
        data_root=str(root), data_prefix=prefix, ann_file='', pipeline=[], lazy_init=True,
        test_mode=True, load_eval_anns=True,
    )  # fmt: skip
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmdet3d')):
        return DATASETS.build({**config, **changes})


def _frame(dataset: BaseDataset, entry: dict, ann_file: str | None) -> Frame:
    """Frame of an entry of an info file."""
    info = dataset.parse_data_info({'instances': [], **copy.deepcopy(entry)})
    if not entry.get('instances'):
        info.pop('eval_ann_info')  # unknown rather than empty
    info.update(box_type_3d=dataset.box_type_3d, box_mode_3d=dataset.box_mode_3d)
    return Frame(info['token'].replace('/', '_'), info, ann_file)
