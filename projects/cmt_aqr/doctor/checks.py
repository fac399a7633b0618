"""All checks in the order of the table: a check comes after those that it depends on."""

from functools import partial

import torch

from .attention import check_attention
from .decoder import check_decoder
from .operators import check_box_iou, check_points_in_boxes
from .processes import check_processes
from .running import Check
from .sparse import check_sparse
from .training import check_training
from .versions import check_device, check_torch_alone, check_versions
from .voxels import check_voxels

HALVES = (torch.bfloat16, torch.float16)


def checks_of(device: torch.device, *, torch_only: bool) -> list[Check]:
    """The checks for a device.

    Args:
        device: device to check. On a CPU half precision would take minutes at the sizes of the
            released models, and is checked at a small size only.
        torch_only: leave out checks that need mmcv or spconv.
    """
    versions = check_torch_alone if torch_only else check_versions
    checks = [Check('versions', versions), Check('device', check_device)]
    if not torch_only:
        checks += [
            Check('points in boxes', check_points_in_boxes),
            Check('overlap of boxes', check_box_iou),
            *_sparse(device),
        ]
    checks += [Check('voxels', check_voxels), *_attention(device), *_decoder(device)]
    if not torch_only:
        checks += [
            Check('training step', partial(check_training, amp=amp)) for amp in (False, True)
        ]
    return [*checks, Check('processes', check_processes)]


def _sparse(device: torch.device) -> list[Check]:
    dtypes = (torch.float32, torch.float16) if device.type == 'cuda' else (torch.float32,)
    return [
        Check('sparse convolution', partial(check_sparse, strided=strided, dtype=dtype))
        for dtype in dtypes
        for strided in (False, True)
    ]


def _attention(device: torch.device) -> list[Check]:
    return [
        Check(f'attention, {size}', partial(check_attention, size=size, dtype=dtype))
        for size in ('small', 'r50', 'vov')
        for dtype in (torch.float32, *HALVES)
        if size == 'small' or dtype == torch.float32 or device.type == 'cuda'
    ]


def _decoder(device: torch.device) -> list[Check]:
    amp = torch.float16 if device.type == 'cuda' else torch.bfloat16
    sizes = ('r50', 'vov') if device.type == 'cuda' else ('r50',)
    return [
        Check(f'decoder, {size}', partial(check_decoder, size=size, dtype=dtype))
        for size in sizes
        for dtype in (torch.float32, amp)
    ]
