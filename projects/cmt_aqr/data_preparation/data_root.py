"""Opening a nuScenes-format data root, with errors that say what to do."""

import os
from pathlib import Path

from nuscenes import NuScenes


def versions_present(root: str | os.PathLike) -> list[str]:
    """Names of the sets of tables in a data root, sorted."""
    return sorted(folder.parent.name for folder in Path(root).glob('*/sample.json'))


def check_tables(root: str | os.PathLike, version: str) -> Path:
    """The data root as an absolute path, once its tables are known to be there.

    Raises:
        FileNotFoundError: There is no such folder, or it has no tables, or none of ``version``.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise FileNotFoundError(
            f'data root {root} does not exist; make one: '
            f'python tools/make_synthetic_nuscenes.py --out {root}'
        )
    present = versions_present(root)
    if not present:
        raise FileNotFoundError(
            f'data root {root} has no nuScenes tables; make a database in a folder of its own: '
            'python tools/make_synthetic_nuscenes.py --out FOLDER'
        )
    if version not in present:
        raise FileNotFoundError(
            f'data root {root} has no {version} tables; its versions are: {", ".join(present)}'
        )
    return root


def is_made(entry: Path) -> bool:
    """Whether something in a data root was made from it, and is not part of nuScenes."""
    endings = ('.pkl', '_objects', '_objects.unfinished', '_gt_database')
    return entry.name.startswith('.') or entry.name.endswith(endings)


def link_tables(root: Path, out: Path) -> Path:
    """Make a folder a data root, by links to all that is in another one and was not made from it.

    Args:
        root: Data root.
        out: Folder to fill; made if it does not exist, and used as it is where links are there.

    Returns:
        The folder as an absolute path.

    Raises:
        FileExistsError: Something else has the name of a link.
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
                f'{link} is in the way of a link to {entry}: move it elsewhere, or name another '
                'folder'
            )
    return out


def open_database(root: str | os.PathLike, version: str | None = None) -> NuScenes:
    """The devkit's view of a data root.

    Args:
        root: Data root.
        version: Name of its tables; None takes those that are there, if they are of one version.

    Raises:
        FileNotFoundError: As :func:`check_tables`.
        ValueError: No version is given and there are several.
    """
    if version is None:
        present = versions_present(root)
        if len(present) > 1:
            raise ValueError(f'data root {root} has several versions, name one: {present}')
        version = present[0] if present else 'v1.0-mini'
    return NuScenes(version=version, dataroot=str(check_tables(root, version)), verbose=False)
