"""A tiny synthetic database for any test; made once a session."""

from pathlib import Path

import pytest

from projects.cmt_aqr.data_preparation.info_files import create_info_files, create_object_database
from projects.cmt_aqr.data_preparation.synthetic import DatabaseSettings, make_database

TINY = DatabaseSettings(
    train_scenes=2, val_scenes=2, keyframes=3, sweeps=1, seed=7, ignored_objects=3
)


@pytest.fixture(scope='session')
def synthetic_settings() -> DatabaseSettings:
    """What ``synthetic_root`` was made from: 2 + 2 scenes of 3 keyframes, one sweep between.

    As in nuScenes, there are objects of classes that are annotated and not detected.
    """
    return TINY


@pytest.fixture(scope='session')
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of a tiny v1.0-mini database with its info files; read it, do not change it."""
    root = make_database(tmp_path_factory.mktemp('data') / 'synthetic', TINY)
    create_info_files(root, version=TINY.version)
    return root


@pytest.fixture(scope='session')
def object_root(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a database of objects, points and image patches; links to what is in both."""
    root = tmp_path_factory.mktemp('objects')
    for entry in synthetic_root.iterdir():
        if entry.suffix != '.pkl':
            (root / entry.name).symlink_to(entry)
    create_object_database(root, version=TINY.version)
    return root
