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

FLOAT32, FLOAT16, BFLOAT16 = torch.float32, torch.float16, torch.bfloat16


def checks_of(device: torch.device, *, torch_only: bool) -> list[Check]:
    """The checks for a device.

    Args:
        device: device to check. On a CPU half precision would take minutes at the sizes of the
            released models, and is checked at a small size only.
        torch_only: leave out checks that need mmcv or spconv.
    """
    on_gpu = device.type == 'cuda'
    operators = [
        Check('points in boxes', check_points_in_boxes),
        Check('overlap of boxes', check_box_iou),
        *(
            Check('sparse convolution', partial(check_sparse, strided=strided, dtype=dtype))
            for dtype in ((FLOAT32, FLOAT16) if on_gpu else (FLOAT32,))
            for strided in (False, True)
        ),
    ]
    attention = [
        Check(f'attention, {size}', partial(check_attention, size=size, dtype=dtype))
        for size in ('small', 'r50', 'vov')
        for dtype in (FLOAT32, BFLOAT16, FLOAT16)
        if size == 'small' or dtype == FLOAT32 or on_gpu
    ]
    decoder = [
        Check(f'decoder, {size}', partial(check_decoder, size=size, dtype=dtype))
        for size in (('r50', 'vov') if on_gpu else ('r50',))
        for dtype in (FLOAT32, FLOAT16 if on_gpu else BFLOAT16)
    ]
    training = [Check('training step', partial(check_training, amp=amp)) for amp in (False, True)]
    return [
        Check('versions', check_torch_alone if torch_only else check_versions),
        Check('device', check_device),
        *([] if torch_only else operators),
        Check('voxels', check_voxels),
        *attention,
        *decoder,
        *([] if torch_only else training),
        Check('processes', check_processes),
    ]
