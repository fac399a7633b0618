"""What every tool does before its other imports, so that it runs from any folder."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

STACK = ('mmengine', 'torch', 'mmcv', 'mmdet', 'mmdet3d', 'spconv', 'nuscenes')


def prepare(*, needs: Sequence[str] = STACK) -> None:
    """Make this checkout importable and set the environment that torch reads at its import.

    Args:
        needs: packages without which the tool cannot run; where one is missing, the process ends
            with status 2 and one line.
    """
    missing = [package for package in needs if importlib.util.find_spec(package) is None]
    if missing:
        print(
            f'{sys.argv[0]}: {missing[0]} is not installed for {sys.executable}; '
            'run `source .venv/bin/activate`',
            file=sys.stderr,
        )
        sys.exit(2)
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # idle OpenMP threads must not spin
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
