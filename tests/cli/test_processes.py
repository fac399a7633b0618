"""How processes start."""

import subprocess
import sys


def test_denormals_are_zero_on_every_thread():
    code = (
        'import torch\n'
        'from projects.cmt_aqr.cli.processes import start_process\n'
        'start_process(0)\n'
        'torch.set_num_threads(2)\n'
        'small = torch.full((1_000_000,), 1e-30)\n'
        'print((small * 1e-10).count_nonzero().item())'
    )
    shown = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert shown.stdout == '0\n'
