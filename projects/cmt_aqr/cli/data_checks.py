"""Early checks of the files of datasets: info files and nuScenes' tables."""

import pickle
from collections.abc import Mapping
from pathlib import Path

from ..data_preparation.old_infos import is_old
from ..usage_error import UsageError, did_you_mean

_OF_AN_IMAGE = ('img_path', 'cam2img', 'lidar2cam')


def check_info_file(path: Path, dataset: Mapping) -> None:
    """Check that an info file has samples, with the entries that loading images needs.

    Args:
        path: the file, which exists.
        dataset: config of the dataset that reads it.

    Raises:
        UsageError: it is of the old format, incomplete or empty, or an entry is missing.
    """
    if is_old(path):
        raise UsageError(
            f'{path} has the format of MMDetection3D before 1.1; to convert it: '
            f'python tools/create_data.py {dataset.get("data_root")} --update-infos {path}'
        )
    again = 'make it again (tools/create_data.py), or copy it again'
    try:
        with path.open('rb') as file:
            content = pickle.load(file)
    except (EOFError, pickle.UnpicklingError, ValueError) as error:
        size = path.stat().st_size
        raise UsageError(f'info file {path} ({size} bytes) is incomplete; {again}') from error
    samples = content.get('data_list') if isinstance(content, Mapping) else None
    if not samples:
        raise UsageError(f'info file {path} has no samples (data_list); {again}')
    if dataset.get('modality', {}).get('use_camera'):
        for number, sample in enumerate(samples):
            _check_images(f'info file {path}, sample {number}', sample.get('images', {}))


def _check_images(where: str, images: Mapping[str, Mapping]) -> None:
    for camera, image in images.items():
        for key in _OF_AN_IMAGE:
            if key not in image:
                hint = did_you_mean(key, image) or f'; it has {", ".join(image)}'
                raise UsageError(f'{where}: images.{camera} has no {key}{hint}')


def check_tables(dataset: Mapping) -> None:
    """Check that nuScenes' tables, which a score needs, exist in the version of a dataset.

    Raises:
        UsageError: they do not.
    """
    version = dataset.get('metainfo', {}).get('version')
    root = Path(dataset.get('data_root') or '')
    if version and not (root / version).is_dir():
        found = sorted(path.parent.name for path in root.glob('*/sample_data.json'))
        there = f'the versions there are {", ".join(found)}' if found else 'no version is there'
        raise UsageError(
            f'metainfo.version={version}: a score needs the tables in {root / version}, which do '
            f'not exist; {there}; set the version, for example by --cfg-options version=...'
        )
