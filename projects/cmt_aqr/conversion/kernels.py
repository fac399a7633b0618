"""Kernels of sparse convolutions: spconv 1 keeps them as (kz, ky, kx, in, out), spconv 2 as
(out, kz, ky, kx, in).

MMDetection3D permutes on load whatever has no ``_metadata`` of version 2, and copies and converters
lose that mark easily. So the layout is told from the shapes.
"""

from collections.abc import Mapping

from torch import Size, Tensor

from .errors import ConversionError


def to_spconv2(kernel: Tensor) -> Tensor:
    """(kz, ky, kx, in, out) -> (out, kz, ky, kx, in)."""
    return kernel.movedim(-1, 0)


def has_spconv1_layout(kernels: Mapping[str, Tensor], shapes: Mapping[str, Size]) -> bool:
    """Whether the kernels of a file are permuted against those of a model.

    A file has one layout: it is told from the kernels whose shape fits in one way alone. Those that
    fit in none are left for others to report.

    Args:
        kernels: of the file, by the name in the model.
        shapes: of the model's kernels.

    Raises:
        ConversionError: kernels of both layouts, or of such shapes that both fit.
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
