"""What every tool does before its other imports, so that it runs from any folder."""

import importlib.util
import os
import sys
from pathlib import Path


def prepare(*, needs: str = 'mmengine') -> None:
    """Make this checkout importable and set the environment that torch reads at its import.

    Args:
        needs: package without which the tool cannot run; where it is missing, the process ends
            with status 2 and one line.
    """
    if importlib.util.find_spec(needs) is None:
        print(
            f'{sys.argv[0]}: {needs} is not installed for {sys.executable}; '
            'run `source .venv/bin/activate`',
            file=sys.stderr,
        )
        sys.exit(2)
    os.environ.setdefault('OMP_WAIT_POLICY', 'passive')  # idle OpenMP threads must not spin
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
