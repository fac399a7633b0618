"""A Python that finds torch and numpy but none of the packages that the detector stands on."""

import os
import subprocess
import sys
from pathlib import Path

ABSENT = ('mmcv', 'mmengine', 'mmdet', 'mmdet3d', 'spconv', 'cumm', 'nuscenes')
# Read by every interpreter that starts, also by the processes that a tool starts.
_SITECUSTOMIZE = f"""
import sys

class Refuse:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition('.')[0] in {ABSENT}:
            raise ModuleNotFoundError(f'No module named {{name!r}} on a machine with torch alone')

sys.meta_path.insert(0, Refuse)
"""


def run_with_torch_alone(
    arguments: list, *, folder: Path, cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; ``folder`` is for what refuses the imports."""
    (folder / 'sitecustomize.py').write_text(_SITECUSTOMIZE)
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'PYTHONPATH': f'{folder}{os.pathsep}{cwd}'},
        capture_output=True,
        text=True,
    )
