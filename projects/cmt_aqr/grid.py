"""Range and voxel grid of a model, which its config gives once.

With LiDAR, the ``point_cloud_range`` and ``voxel_size`` of the voxel layer determine the grid of
the sparse encoder and the range of the head; without, the head has the range. Whatever a config
gives in addition must agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .geometry import VoxelGrid, check_range

# Boxes whose centres lie farther outside the range than this are removed, metres.
MARGIN = 5.0


def range_of(model: Mapping) -> tuple[float, ...]:
    """Point-cloud range of a model's config: of its voxels, or else of its head.

    Raises:
        ValueError: neither has one.
    """
    voxel_layer = (model.get('data_preprocessor') or {}).get('voxel_layer') or {}
    for place in (voxel_layer, model['pts_bbox_head']):
        if place.get('point_cloud_range') is not None:
            return tuple(place['point_cloud_range'])
    raise ValueError(
        'the model has no point_cloud_range: give it in data_preprocessor.voxel_layer, or without '
        'LiDAR in pts_bbox_head'
    )


def fit_head(head: Mapping, limits: Sequence[float]) -> dict:
    """Config of the head with the model's range, and by default the limits of its boxes around it.

    Raises:
        ValueError: the head has another range, or removes boxes inside it.
    """
    check_range(limits)
    if head.get('point_cloud_range') is not None:
        _agree('pts_bbox_head.point_cloud_range', head['point_cloud_range'], limits, _FROM_VOXELS)
    low, high = limits[:3], limits[3:]
    around = [*(value - MARGIN for value in low), *(value + MARGIN for value in high)]
    coder = {'post_center_range': around, **head['box_coder']}
    kept = coder['post_center_range']
    if any(a > b for a, b in zip(kept[:3], low, strict=True)) or any(
        a < b for a, b in zip(kept[3:], high, strict=True)
    ):
        raise ValueError(
            f'box_coder.post_center_range is {list(kept)}, which removes boxes within the range '
            f'{list(limits)}: leave it out to keep {MARGIN:g} m around the range'
        )
    return {**head, 'point_cloud_range': list(limits), 'box_coder': coder}


_FROM_VOXELS = 'that of data_preprocessor.voxel_layer is'


def fit_encoder(
    encoder: Mapping, voxel_layer: Mapping, *, crops_range: bool
) -> tuple[dict, VoxelGrid]:
    """Config of the sparse encoder with the grid of the voxels, and the grid.

    Args:
        encoder: config of the sparse encoder.
        voxel_layer: config of the voxel layer.
        crops_range: whether the encoder may have a ``sparse_shape`` of its own.

    Raises:
        ValueError: the range is not a whole number of voxels, or the encoder has another grid.
    """
    limits, size = voxel_layer['point_cloud_range'], voxel_layer['voxel_size']
    check_range(limits)
    exact = [(b - a) / s for a, b, s in zip(limits[:3], limits[3:], size, strict=True)]
    cells = [round(number) for number in exact]
    if any(abs(a - b) > 1e-3 for a, b in zip(exact, cells, strict=True)):
        numbers = ', '.join(f'{number:g}' for number in exact)
        raise ValueError(
            f'voxel_layer: point_cloud_range {list(limits)} has {numbers} voxels of {list(size)} m '
            'along x, y, z; change either so that the numbers are whole'
        )
    x, y, z = cells
    shape = [z + 1, y, x]  # one more along z, as in SECOND
    given = encoder.get('sparse_shape')
    if given is not None and not crops_range:
        needed = 'the range and voxel_size of data_preprocessor.voxel_layer make'
        _agree('pts_middle_encoder.sparse_shape', given, shape, needed)
    shape = shape if given is None else list(given)
    return {**encoder, 'sparse_shape': shape}, VoxelGrid(size, shape)


def _agree(name: str, found: Sequence[float], expected: Sequence[float], source: str) -> None:
    if list(found) != list(expected):
        raise ValueError(
            f'{name} is {list(found)}, but {source} {list(expected)}; leave {name} out'
        )
