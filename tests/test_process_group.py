"""Processes end without an abort."""

import subprocess
import sys

END = """
import sys
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

from projects.cmt_aqr.process_group import leave_process_group


def threads_of_gloo():
    names = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]
    return sum('gloo' in name for name in names)


def reduce():
    model = DistributedDataParallel(torch.nn.Linear(4, 4))
    model.cycle = [model]
    for _ in range(200):
        torch.distributed.all_reduce(torch.ones(1000), async_op=True)


rank, store = sys.argv[1:]
leave_process_group()  # no group yet
torch.distributed.init_process_group(
    'gloo', init_method='file://' + store, rank=int(rank), world_size=2
)
reduce()
before = threads_of_gloo()
leave_process_group()
print(before > 0, threads_of_gloo())
"""


def test_no_thread_of_gloo_outlives_the_process_group(tmp_path, repo_root):
    """A thread with work left would abort the process at its end."""
    command = [sys.executable, '-c', END]
    pair = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / 'store')],
            cwd=repo_root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in pair:
        said, errors = process.communicate()
        assert (process.returncode, said) == (0, 'True 0\n'), errors
