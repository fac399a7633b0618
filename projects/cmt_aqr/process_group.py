"""A clean exit from torch's process group; imports with torch alone."""

import gc

import torch

# Must be imported while there is no process group: its functions have the default argument
# `group.WORLD`, which is evaluated at import and would keep the group alive until the interpreter
# ends. DistributedDataParallel imports it on its first use.
import torch.distributed.nn.functional


def leave_process_group() -> None:
    """Leave the process group, if there is one; models and Runners must be out of use by then.

    gloo's threads end with the last reference to the group, and DistributedDataParallel holds one.
    A thread that releases a tensor while the interpreter shuts down would abort the process
    ("terminate called without an active exception"), and torchrun would report a failed run.
    """
    if torch.distributed.is_initialized():
        gc.collect()  # a Runner and its hooks refer to each other
        torch.distributed.destroy_process_group()
