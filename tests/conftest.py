"""Fixtures shared by all tests, and the conditions every test runs under."""

import os
import warnings
from collections import OrderedDict
from pathlib import Path

# Idle OpenMP threads must not spin: read by the runtime when torch is first imported.
os.environ.setdefault('OMP_WAIT_POLICY', 'passive')

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

pytest_plugins = ['synthetic_fixture']

REPO_ROOT = Path(__file__).resolve().parents[1]
SHARED_ROOT = Path(os.environ.get('CMT_AQR_SHARED', REPO_ROOT.parent / 'shared'))


def pytest_configure() -> None:
    """Bound the threads: the tensors of the tests are tiny, and other jobs may share the cores."""
    processes = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
    torch.set_num_threads(max(1, min(2, os.cpu_count() or 1) // processes))


@pytest.fixture(autouse=True)
def _own_log(monkeypatch) -> None:
    """A log of its own for each run: mmengine takes those that start in one second for the same."""
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Start every test from the same random state, whichever tests ran before it."""
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _default_scope() -> None:
    """Start every test with MMDetection3D's registries, whichever Runner was built before it."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of a change of the scope
        init_default_scope('mmdet3d')


def _shared_folder(name: str) -> Path:
    folder = SHARED_ROOT / name
    if not folder.is_dir():
        pytest.skip(f'{folder} does not exist; set CMT_AQR_SHARED to the folder that holds {name}')
    return folder


@pytest.fixture(scope='session')
def repo_root() -> Path:
    """Root of the checkout."""
    return REPO_ROOT


@pytest.fixture(scope='session')
def real_frame() -> Path:
    """Folder of the one real nuScenes keyframe: LiDAR file, six images, info file."""
    return _shared_folder('nuscenes_frame')


@pytest.fixture(scope='session')
def reference() -> Path:
    """Folder of the numbers recorded from the public CMT implementation."""
    return _shared_folder('reference')
