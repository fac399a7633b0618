"""mmdet3d's info files for a nuScenes-format database, and the database of its objects.

The info files are made by mmdet3d's own converter.

The converter ships inside the wheel as scripts, below ``mmdet3d/.mim/tools``. Its second half reads
``./data/nuscenes`` whatever the data root, and its first half leaves files of the old format behind
if it stops between the two; so it runs in a temporary folder that holds a ``data/nuscenes`` of
links, and what it has made moves into the data root together. What it prints goes to the log at
level DEBUG; its progress bars stay.
"""

import importlib.util
import io
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType

import mmdet3d
from mmengine.fileio import load
from mmengine.logging import print_log

from .data_root import check_tables, is_made, link_tables
from .object_database import collect_objects
from .old_infos import check_old, is_old

INFO_SPLITS = {
    'v1.0-mini': ('train', 'val'),
    'v1.0-trainval': ('train', 'val'),
    'v1.0-test': ('test',),
}
OBJECTS_FOLDER = '{prefix}_objects'


def create_info_files(
    root: str | os.PathLike,
    *,
    version: str,
    prefix: str = 'nuscenes',
    max_sweeps: int = 10,
    out: str | os.PathLike | None = None,
) -> list[Path]:
    """Write ``{prefix}_infos_train.pkl`` and ``{prefix}_infos_val.pkl`` into a data root.

    The working folder of the process is another one meanwhile, and standard output is redirected:
    not to be called beside other threads.

    Args:
        root: Data root of a nuScenes-format database.
        version: ``v1.0-mini``, ``v1.0-trainval`` or ``v1.0-test``, which has one file,
            ``{prefix}_infos_test.pkl``.
        prefix: Start of the files' names.
        max_sweeps: Past LiDAR sweeps listed for each keyframe.
        out: Folder to write into in place of ``root``, which then stays untouched; it becomes a
            data root of its own, with links to all else.

    Returns:
        What was written, in mmdet3d's v1.1 format.

    Raises:
        FileNotFoundError: There is no such data root, or it has no tables of that version.
        FileExistsError: Something in ``out`` has the name of a link.
        ValueError: The version is not one of nuScenes'.
    """
    root = _writable_root(root, version, out)
    names = _info_names(version, prefix)
    with _linked_root(root) as linked:
        _convert(linked, version, prefix, max_sweeps, names)
        return [(linked / name).resolve().rename(root / name) for name in names]


def create_object_database(
    root: str | os.PathLike,
    *,
    version: str,
    prefix: str = 'nuscenes',
    max_sweeps: int = 10,
    out: str | os.PathLike | None = None,
    workers: int = 1,
    overwrite: bool = False,
) -> list[Path]:
    """Write ``{prefix}_objects``, the training objects with points and image patches.

    It is what ``JointObjectSample`` pastes. Info files of this version that are there are used,
    others are made first. A call that was cut short goes on where it stopped when it is made again.

    Args:
        root, version, prefix, max_sweeps, out: As in :func:`create_info_files`.
        workers: Processes; their number does not change the result.
        overwrite: Replace a database of objects of other samples, or a finished one.

    Returns:
        What was written, info files first.

    Raises:
        FileNotFoundError: As in :func:`create_info_files`.
        FileExistsError: As there, or a database of other samples is in the place of this one.
        ValueError: The version is not one of nuScenes', or has no annotations.
    """
    names = _info_names(version, prefix)
    if version == 'v1.0-test':
        raise ValueError(f'{version} has no annotations, so no database of objects')
    root = _writable_root(root, version, out)
    made = []
    infos = _read_infos([root / name for name in names], version)
    if infos is None:
        made = create_info_files(root, version=version, prefix=prefix, max_sweeps=max_sweeps)
        infos = load(made[0])['data_list']
    else:
        print_log(f'keeping {" and ".join(names)}', logger='current')
    folder = root / OBJECTS_FOLDER.format(prefix=prefix)
    if collect_objects(root, folder, infos, workers=workers, overwrite=overwrite):
        made.append(folder)
    return made


def update_info_file(
    root: str | os.PathLike, file: str | os.PathLike, *, out: str | os.PathLike | None = None
) -> Path:
    """Bring an info file of MMDetection3D's format before 1.1 to today's.

    It goes into the data root under its own name. If that is where the old file is, the old one
    stays beside it, with ``.old`` at the end of its name. Otherwise as :func:`create_info_files`.

    Args:
        root: Data root of the database that the file is of.
        file: The old info file.
        out: As in :func:`create_info_files`.

    Returns:
        The new file.

    Raises:
        FileNotFoundError: There is no such file or data root, or it has no tables of the version
            that the file is of.
        FileExistsError: Another file has the name of the new one, or of the old one that stays.
        ValueError: The file has another format, or is of a version before 1.0.
    """
    file = Path(file).resolve()
    if not file.is_file():
        raise FileNotFoundError(f'info file {file} does not exist')
    if not is_old(file):
        raise ValueError(f"{file} has not MMDetection3D's format before 1.1: nothing to convert")
    infos = load(file)
    check_old(infos, file)
    root = _writable_root(root, infos['metadata']['version'], out)
    target, kept = root / file.name, root / f'{file.name}.old'
    in_the_way = kept if target == file else target
    if in_the_way.exists():
        raise FileExistsError(f'{in_the_way} is in the way: move it elsewhere')
    with _linked_root(root) as linked:
        with _quiet(f'converting {file}'):
            _load_script('update_infos_to_v2').update_pkl_infos('nuscenes', str(linked), str(file))
        if target == file:
            file.rename(kept)
        return (linked / file.name).resolve().rename(target)


def _info_names(version: str, prefix: str) -> list[str]:
    if version not in INFO_SPLITS:
        raise ValueError(f'version must be one of {", ".join(INFO_SPLITS)}, got {version!r}')
    return [f'{prefix}_infos_{split}.pkl' for split in INFO_SPLITS[version]]


def _writable_root(root: str | os.PathLike, version: str, out: str | os.PathLike | None) -> Path:
    """The data root to write into: the given one, or ``out`` with links to it."""
    root = check_tables(root, version)
    return root if out is None else link_tables(root, Path(out))


def _read_infos(files: list[Path], version: str) -> list[dict] | None:
    """Infos of the first file; None if one is missing, or it is of another version or format."""
    if not all(file.is_file() for file in files) or is_old(files[0]):
        return None
    content = load(files[0])
    return content['data_list'] if content['metainfo']['version'] == version else None


def _convert(linked: Path, version: str, prefix: str, max_sweeps: int, names: list[str]) -> None:
    """Both halves of the converter: info files of the old format, then made anew."""
    with _quiet(f'reading the {version} tables'):
        _load_script('nuscenes_converter').create_nuscenes_infos(
            str(linked), prefix, version=version, max_sweeps=max_sweeps
        )
    updater = _load_script('update_infos_to_v2')
    for name in names:
        with _quiet(f'writing {name}'):
            updater.update_pkl_infos('nuscenes', str(linked), str(linked / name))


@contextmanager
def _quiet(step: str) -> Iterator[None]:
    """Log the name of a step, and what it prints at level DEBUG."""
    print_log(step, logger='current')
    chatter = io.StringIO()
    try:
        with redirect_stdout(chatter):
            yield
    finally:
        print_log(chatter.getvalue(), logger='current', level=logging.DEBUG)


def _load_script(name: str) -> ModuleType:
    """A converter script of the installed mmdet3d, as a module."""
    folder = Path(mmdet3d.__file__).parent / '.mim' / 'tools' / 'dataset_converters'
    spec = importlib.util.spec_from_file_location(f'mmdet3d_{name}', folder / f'{name}.py')
    if spec is None or not (folder / f'{name}.py').is_file():
        raise FileNotFoundError(f'{folder} lacks {name}.py; install mmdet3d from its wheel')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _linked_root(root: Path) -> Iterator[Path]:
    """``data/nuscenes`` in a temporary working folder, with links to all that was not made here."""
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
        finally:
            os.chdir(before)
