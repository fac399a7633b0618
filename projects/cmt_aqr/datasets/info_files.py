"""mmdet3d's info files for a nuScenes-format database, made by mmdet3d's own converter.

The converter ships inside the wheel as scripts, below ``mmdet3d/.mim/tools``. Its second half reads
``./data/nuscenes`` whatever the data root, and its first half leaves files of the old format behind
if it stops between the two; so it runs in a temporary folder that holds a ``data/nuscenes`` of
links, and the finished files move into the data root together.
"""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import mmdet3d

INFO_SPLITS = {
    'v1.0-mini': ('train', 'val'),
    'v1.0-trainval': ('train', 'val'),
    'v1.0-test': ('test',),
}


def create_info_files(
    root: str | os.PathLike, *, version: str, prefix: str = 'nuscenes', max_sweeps: int = 10
) -> list[Path]:
    """Write ``{prefix}_infos_train.pkl`` and ``{prefix}_infos_val.pkl`` into a data root.

    Args:
        root: Data root of a nuScenes-format database.
        version: ``v1.0-mini``, ``v1.0-trainval`` or ``v1.0-test``, which has one file,
            ``{prefix}_infos_test.pkl``.
        prefix: Start of the files' names.
        max_sweeps: Past LiDAR sweeps listed for each keyframe.

    Returns:
        The files, in mmdet3d's v1.1 format.

    Raises:
        FileNotFoundError: ``root`` has no tables of that version.
        ValueError: The version is not one of nuScenes'.
    """
    root = Path(root).resolve()
    if version not in INFO_SPLITS:
        raise ValueError(f'version must be one of {", ".join(INFO_SPLITS)}, got {version!r}')
    if not (root / version / 'sample.json').is_file():
        raise FileNotFoundError(
            f'{root} has no {version} tables; make a database there with '
            'tools/make_synthetic_nuscenes.py, or give the root and version of one'
        )
    converter, updater = (_load_script(n) for n in ('nuscenes_converter', 'update_infos_to_v2'))
    with _linked_root(root) as linked:
        converter.create_nuscenes_infos(str(linked), prefix, version=version, max_sweeps=max_sweeps)
        names = [f'{prefix}_infos_{split}.pkl' for split in INFO_SPLITS[version]]
        for name in names:
            updater.update_pkl_infos('nuscenes', str(linked), str(linked / name))
        # One rename each, on one file system: the temporary folder is inside the root.
        return [(linked / name).resolve().rename(root / name) for name in names]


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
    """``data/nuscenes`` in a temporary working folder, with links to all of ``root``."""
    entries = list(root.iterdir())
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix='.infos-', dir=root) as folder:
        linked = Path('data/nuscenes')
        (folder / linked).mkdir(parents=True)
        for entry in entries:
            if entry.suffix != '.pkl':
                (folder / linked / entry.name).symlink_to(entry)
        os.chdir(folder)
        try:
            yield linked
        finally:
            os.chdir(before)
