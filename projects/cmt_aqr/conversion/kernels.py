"""Layouts of sparse convolution kernels.

spconv 1 stores them as (kz, ky, kx, in, out), spconv 2 as (out, kz, ky, kx, in).
MMDetection3D permutes kernels on load unless the state dict has ``_metadata`` of version 2, which
copies and converters easily lose. Here the layout is inferred from the shapes.
"""

from collections.abc import Mapping

from torch import Size, Tensor

from .errors import ConversionError


def to_spconv2(kernel: Tensor) -> Tensor:
    """(kz, ky, kx, in, out) -> (out, kz, ky, kx, in)."""
    return kernel.movedim(-1, 0)


def has_spconv1_layout(kernels: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> bool:
    """Whether the kernels of a file have spconv 1's layout, given the shapes in the model.

    All kernels of a file have one layout. It is inferred from those whose shape fits in only one
    layout; kernels that fit in neither are reported elsewhere.

    Args:
        kernels: kernels of the file, by name in the model.
        shapes: shapes of the kernels of the model.

    Raises:
        ConversionError: the file mixes both layouts, or every kernel fits in both.
    """
    fitting = {
        name: (kernel.shape == shapes[name], to_spconv2(kernel).shape == shapes[name])
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
