"""Data roots in nuScenes' format."""

import os
from pathlib import Path

from nuscenes import NuScenes

# As the converter of mmdet3d and the official score require it.
LIDAR_CHANNEL = 'LIDAR_TOP'


def versions_present(root: str | os.PathLike) -> list[str]:
    """Returns the versions that a data root has tables of, sorted."""
    return sorted(folder.parent.name for folder in Path(root).glob('*/sample.json'))


def check_tables(root: str | os.PathLike, version: str) -> Path:
    """Returns the data root as an absolute path, after a check of its tables.

    Raises:
        FileNotFoundError: the folder does not exist, or has no tables of ``version``.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f'data root {root} does not exist; make one: '
            f'python tools/make_synthetic_nuscenes.py --out {root}'
        )
    versions = versions_present(root)
    if not versions:
        raise FileNotFoundError(
            f'data root {root} has no nuScenes tables; make a database in a folder of its own: '
            'python tools/make_synthetic_nuscenes.py --out FOLDER'
        )
    if version not in versions:
        raise FileNotFoundError(
            f'data root {root} has no {version} tables; its versions are: {", ".join(versions)}'
        )
    return root


def is_made(entry: Path) -> bool:
    """Whether an entry of a data root was made from the data, rather than downloaded."""
    endings = ('.pkl', '_objects', '_objects.unfinished', '_gt_database')
    return entry.name.startswith('.') or entry.name.endswith(endings)


def link_tables(root: Path, out: Path) -> Path:
    """Makes a folder a data root, by links to the data of another one.

    Args:
        root: data root.
        out: folder to fill, which may not exist yet, or may have links already.

    Returns:
        The folder as an absolute path.

    Raises:
        FileExistsError: another entry has the name of a link.
    """
    out.mkdir(parents=True, exist_ok=True)
    out = out.resolve()
    for entry in root.iterdir():
        link = out / entry.name
        if is_made(entry) or entry == out:
            continue
        if not link.exists():
            link.unlink(missing_ok=True)  # a link to what has been moved
            link.symlink_to(entry)
        elif not link.samefile(entry):
            raise FileExistsError(
                f'{link} exists and is not a link to {entry}: move it elsewhere, or name another '
                'folder'
            )
    return out


def open_database(root: str | os.PathLike, version: str | None = None) -> NuScenes:
    """Opens a data root with the devkit.

    Args:
        root: data root.
        version: version of the tables; None for the only one.

    Raises:
        FileNotFoundError: see :func:`check_tables`.
        ValueError: ``version`` is None, and the data root has several.
    """
    if version is None:
        versions = versions_present(root)
        if len(versions) > 1:
            raise ValueError(f'data root {root} has several versions, name one: {versions}')
        version = versions[0] if versions else 'v1.0-mini'
    return NuScenes(version=version, dataroot=str(check_tables(root, version)), verbose=False)
