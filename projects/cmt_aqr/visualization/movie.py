"""Movies of figures: GIF by imageio, MP4 by OpenCV."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import imageio.v3 as imageio
import numpy as np
from matplotlib.figure import Figure

from ..files import replacing

SUFFIXES = ('.gif', '.mp4')


def save_movie(images: Sequence[np.ndarray], file: Path, *, fps: float) -> Path:
    """Write images as a movie, by the suffix of the file; return the file.

    Args:
        images: (H, W, 3) uint8 each, from :func:`pixels`; smaller ones get a white border.
        file: ``.gif`` or ``.mp4``.
        fps: images a second.

    Raises:
        OSError: OpenCV cannot write MP4 on this machine.
    """
    height, width = np.max([image.shape[:2] for image in images], axis=0)
    images = [_padded(image, height, width) for image in images]
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        if file.suffix == '.gif':
            imageio.imwrite(temporary, images, duration=1000 / fps, loop=0)
        else:
            _write_mp4(temporary, images, fps)
    return file


def pixels(figure: Figure) -> np.ndarray:
    """(H, W, 3) uint8, RGB, of a figure."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _padded(image: np.ndarray, height: int, width: int) -> np.ndarray:
    rows, columns = height - image.shape[0], width - image.shape[1]
    return np.pad(image, ((0, rows), (0, columns), (0, 0)), constant_values=255)


def _write_mp4(file: Path, images: Sequence[np.ndarray], fps: float) -> None:
    # MP4 needs even sizes.
    height, width = (size // 2 * 2 for size in images[0].shape[:2])
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*'mp4v'), fps, (width, height))
    if not writer.isOpened():
        raise OSError(f'OpenCV cannot write {file.suffix} on this machine; use a .gif')
    for image in images:
        writer.write(np.ascontiguousarray(image[:height, :width, ::-1]))
    writer.release()
