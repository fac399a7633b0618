"""Conversion of a published checkpoint to the state dict of a model of this project.

spconv 1 stores sparse kernels as (kz, ky, kx, in, out), spconv 2 as (out, kz, ky, kx, in).
MMDetection3D permutes them on load unless the state dict has ``_metadata`` of version 2, which
copies and converters easily lose. Here the layout is inferred from the shapes.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Size, Tensor, nn

from ..files import replacing
from .layouts import (
    MOME_TYPE_EMBEDDINGS,
    Layout,
    Places,
    find_places,
    may_be_missing,
    recognise,
)
from .source import ConversionError, Source
from .type_embeddings import fold_type_embeddings

_SPARSE_PART = 'pts_middle_encoder.'
_COUNTER = 'num_batches_tracked'
# MoME's router has this many heads; its weights would load into a router with any number.
_MOME_ROUTER_HEADS = 4


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Converted weights and a report on every key."""

    layout: Layout
    """of the source file"""
    state: OrderedDict[str, Tensor]
    """converted weights in the order, dtypes and layout of the model, with its ``_metadata``"""
    reshaped: Mapping[str, str]
    """old and new shape of permuted kernels, by name in the model"""
    counters: tuple[str, ...]
    """batch counters of norm layers that the file lacks, set to zero as in PyTorch"""
    casts: Mapping[tuple[str, str], int]
    """number of tensors cast, by old and new dtype"""
    left_out: Mapping[str, str]
    """reason why a tensor of the file was not used, by name in the file"""
    missing: Mapping[str, str]
    """reason why a tensor of the model was not filled, by name in the model"""

    def __str__(self) -> str:
        parts = Counter(name.split('.')[0] for name in self.state)
        sections = [
            f'layout of {self.layout.value}',
            'filled: ' + ', '.join(f'{count} of {part}' for part, count in parts.items()),
            *(f'{count} tensors from {old} to {new}' for (old, new), count in self.casts.items()),
            *_section(
                "sparse kernels brought from spconv 1's layout to spconv 2's",
                [f'{name} {change}' for name, change in self.reshaped.items()],
            ),
            *_section('batch counters that the file lacks, set to zero', self.counters),
            *_by_reason('no place here', self.left_out),
            *_by_reason('missing in the file, left as the model starts', self.missing),
        ]
        return '\n'.join(sections)


def convert(source: Mapping[str, Tensor], model: nn.Module) -> Conversion:
    """Convert weights to the names, shapes and dtypes of a model, and load them into it.

    No weight is invented: tensors that the source lacks are missing in the result as well, so that
    an audit still reports them as not loaded.

    Args:
        source: tensors of a published file by name.
        model: model built from a config; its weights are overwritten.

    Raises:
        ConversionError: a tensor of the file or of the model remains unmatched without a known
            reason, has another shape, or is not finite. The message lists all of them.
    """
    own = model.state_dict()
    layout = recognise(source)
    places = find_places(layout, source, own)
    given, reshaped = _reshape({new: source[old] for old, new in places.targets.items()}, own)
    absent = [name for name in own if name not in given]
    counters = tuple(n for n in absent if n.endswith(_COUNTER) and _norm_is_in(given, n))
    missing = {name: reason for name in absent if (reason := may_be_missing(layout, name, given))}
    unexplained = [name for name in absent if name not in counters and name not in missing]
    _refuse_faults(source, places, given, own, unexplained)
    if layout is Layout.MOME:
        _check_router(model)

    values, casts = _cast(given, own)
    values |= {name: torch.zeros_like(own[name]) for name in counters}
    type_embeddings = [source[name] for name in MOME_TYPE_EMBEDDINGS if name in places.left_out]
    if type_embeddings:
        fold_type_embeddings(values, type_embeddings)
    state = OrderedDict((name, values[name]) for name in own if name in values)
    state._metadata = own._metadata
    model.load_state_dict(state, strict=False)
    return Conversion(
        layout=layout,
        state=state,
        reshaped=reshaped,
        counters=counters,
        casts=casts,
        left_out=places.left_out,
        missing=missing,
    )


def write_checkpoint(path: Path, conversion: Conversion, source: Source, *, config: str) -> None:
    """Write a checkpoint for ``load_from`` and ``tools/test.py``, with a note on its origin.

    Args:
        path: file to write; an existing file is replaced once the new one is complete.
        conversion: converted weights.
        source: file that they were converted from.
        config: name of the config of the model.
    """
    meta = {
        'converted_from': source.path.name,
        'sha256': hashlib.sha256(source.path.read_bytes()).hexdigest(),
        'layout': conversion.layout.value,
        'config': config,
        'left_out': list(conversion.left_out),
        'missing': list(conversion.missing),
    }
    with replacing(path) as temporary:
        torch.save({'meta': meta, 'state_dict': conversion.state}, temporary)


def has_spconv1_layout(kernels: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> bool:
    """Whether the kernels of a file have spconv 1's layout, given the shapes in the model.

    All kernels of a file have one layout. It is inferred from those whose shape fits in only one
    layout; kernels that fit in neither are reported elsewhere.

    Raises:
        ConversionError: the file mixes both layouts, or every kernel fits in both.
    """
    fitting = {
        name: (kernel.shape == shapes[name], kernel.movedim(-1, 0).shape == shapes[name])
        for name, kernel in kernels.items()
    }
    old = [name for name, fits in fitting.items() if fits == (False, True)]
    new = [name for name, fits in fitting.items() if fits == (True, False)]
    if old and new:
        raise ConversionError(
            f'the sparse kernels have both layouts: {", ".join(old)} that of spconv 1, '
            f'{", ".join(new)} that of spconv 2'
        )
    if not old and not new and any(fits == (True, True) for fits in fitting.values()):
        raise ConversionError(
            'the layout of the sparse kernels cannot be told: all sizes of each are equal'
        )
    return bool(old)


def _reshape(
    values: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors with sparse kernels permuted from spconv 1's layout, and their changes of shape."""
    kernels = {n: v for n, v in values.items() if n.startswith(_SPARSE_PART) and v.dim() == 5}
    if not has_spconv1_layout(kernels, {name: own[name].shape for name in kernels}):
        return dict(values), {}
    permuted = {name: kernel.movedim(-1, 0) for name, kernel in kernels.items()}
    reshaped = {
        name: f'{_shape(kernels[name])} -> {_shape(kernel)}'
        for name, kernel in permuted.items()
        if kernel.shape == own[name].shape
    }
    return {**values, **permuted}, reshaped


def _norm_is_in(values: Mapping[str, Tensor], counter: str) -> bool:
    return counter.removesuffix(_COUNTER) + 'running_mean' in values


def _cast(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], Counter[tuple[str, str]]]:
    """Tensors in the dtypes of the model, and the number of casts by old and new dtype."""
    values, casts = {}, Counter()
    for name, value in given.items():
        dtype = own[name].dtype
        # A copy: a view would be saved with the whole tensor that it is a view of.
        values[name] = value.to(dtype, copy=True, memory_format=torch.contiguous_format)
        if value.dtype != dtype:
            casts[tuple(str(kind).removeprefix('torch.') for kind in (value.dtype, dtype))] += 1
    return values, casts


def _refuse_faults(
    source: Mapping[str, Tensor],
    places: Places,
    given: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    unexplained: Sequence[str],
) -> None:
    """Raise a ConversionError that lists all faulty tensors by kind of fault."""
    used = {*places.targets, *MOME_TYPE_EMBEDDINGS}
    faults = {
        'keys of the file that have no place in the model': [
            f'{name} {_shape(value)}'
            for name, value in source.items()
            if name not in places.targets and name not in places.left_out
        ],
        'tensors of the model that the file lacks': [
            f'{name} {_shape(own[name])}' for name in unexplained
        ],
        'tensors of another shape': [
            f'{name} {_shape(value)}, in the model {_shape(own[name])}'
            for name, value in given.items()
            if value.shape != own[name].shape
        ],
        'tensors with values that are not finite': [
            name for name, value in source.items() if name in used and not value.isfinite().all()
        ],
    }
    listed = [line for title, lines in faults.items() for line in _section(title, lines)]
    if listed:
        listing = '\n'.join(listed)
        raise ConversionError(f'the file does not fit the model of the config:\n{listing}')


def _check_router(model: nn.Module) -> None:
    """Raise a ConversionError if the model's router has another number of heads than MoME's."""
    router = getattr(model.pts_bbox_head, 'router', None)
    if router is None:
        return
    num_heads = router.aqr_weight_generator.attention.num_heads
    if num_heads != _MOME_ROUTER_HEADS:
        raise ConversionError(
            f"the router of MoME has {_MOME_ROUTER_HEADS} heads, the config's has "
            f'{num_heads}: set aqr.weight_generator.num_heads'
        )


def _section(title: str, lines: Sequence[str]) -> list[str]:
    """The title with its lines, or an empty list if there are no lines."""
    return ['\n  '.join([f'{title} ({len(lines)}):', *lines])] if lines else []


def _by_reason(title: str, reasons: Mapping[str, str]) -> list[str]:
    """A section for each reason, with its keys."""
    keys: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        keys.setdefault(reason, []).append(key)
    return [
        line for reason, names in keys.items() for line in _section(f'{title}: {reason}', names)
    ]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
