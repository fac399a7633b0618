"""mmdet3d's info files for a nuScenes-format database, made by mmdet3d's own converter.

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
from mmengine.registry import DefaultScope

from .data_root import check_tables
from .object_sampling import add_patches
from .old_infos import check_old, is_old

INFO_SPLITS = {
    'v1.0-mini': ('train', 'val'),
    'v1.0-trainval': ('train', 'val'),
    'v1.0-test': ('test',),
}
OBJECTS_FOLDER = '{prefix}_gt_database'
OBJECTS_FILE = '{prefix}_dbinfos_train.pkl'


def create_info_files(
    root: str | os.PathLike,
    *,
    version: str,
    prefix: str = 'nuscenes',
    max_sweeps: int = 10,
    with_database: bool = False,
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
        with_database: Also write the objects of the training split with their points and image
            patches, for ``JointObjectSample`` and mmdet3d's ``ObjectSample``:
            ``{prefix}_gt_database`` and ``{prefix}_dbinfos_train.pkl``.

    Returns:
        What was written, info files in mmdet3d's v1.1 format first.

    Raises:
        FileNotFoundError: There is no such data root, or it has no tables of that version.
        ValueError: The version is not one of nuScenes', or objects are wanted of one without
            annotations.
    """
    root = check_tables(root, version)
    if version not in INFO_SPLITS:
        raise ValueError(f'version must be one of {", ".join(INFO_SPLITS)}, got {version!r}')
    splits = INFO_SPLITS[version]
    if with_database and 'train' not in splits:
        raise ValueError(f'{version} has no annotations, so no database of objects')
    names = [f'{prefix}_infos_{split}.pkl' for split in splits]
    with _linked_root(root) as linked:
        _convert(linked, version, prefix, max_sweeps, names)
        if with_database:
            _collect_objects(linked, prefix, names[0])
            names += [text.format(prefix=prefix) for text in (OBJECTS_FOLDER, OBJECTS_FILE)]
        return [_move(linked / name, root / name) for name in names]


def update_info_file(root: str | os.PathLike, file: str | os.PathLike) -> Path:
    """Bring an info file of MMDetection3D's format before 1.1 to today's.

    It goes into the data root under its own name. If that is where the old file is, the old one
    stays beside it, with ``.old`` at the end of its name. Otherwise as :func:`create_info_files`.

    Args:
        root: Data root of the database that the file is of.
        file: The old info file.

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
    root = check_tables(root, infos['metadata']['version'])
    target, kept = root / file.name, root / f'{file.name}.old'
    in_the_way = kept if target == file else target
    if in_the_way.exists():
        raise FileExistsError(f'{in_the_way} is in the way: move it elsewhere')
    with _linked_root(root) as linked:
        with _quiet(f'converting {file}'):
            _load_script('update_infos_to_v2').update_pkl_infos('nuscenes', str(linked), str(file))
        if target == file:
            file.rename(kept)
        return _move(linked / file.name, target)


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


def _collect_objects(linked: Path, prefix: str, info_file: str) -> None:
    scope = DefaultScope.overwrite_default_scope('mmdet3d')
    with scope, _quiet(f'writing {OBJECTS_FOLDER.format(prefix=prefix)}'):
        _load_script('create_gt_database').create_groundtruth_database(
            'NuScenesDataset', str(linked), prefix, info_file
        )
    with _quiet('cutting image patches of the objects'):
        add_patches(linked, info_file, OBJECTS_FILE.format(prefix=prefix))


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
            if entry.suffix != '.pkl' and not entry.name.endswith('_gt_database'):
                (folder / linked / entry.name).symlink_to(entry)
        os.chdir(folder)
        try:
            yield linked
        finally:
            os.chdir(before)


def _move(made: Path, target: Path) -> Path:
    """Put something from the temporary folder, which is in the data root, in its place there."""
    if target.is_dir():
        # A folder is not replaced by a rename; the temporary folder takes the old one with it.
        target.rename(made.with_name(f'{made.name}.old'))
    return made.resolve().rename(target)
