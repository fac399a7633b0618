"""Movies have the size and the number of their figures."""

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from projects.cmt_aqr.visualization.movie import pixels, save_movie


def plain(colour: str) -> Figure:
    figure = Figure(figsize=(0.65, 0.45), dpi=100, facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def frames() -> list[np.ndarray]:
    return [pixels(plain(colour)) for colour in ('red', 'blue')]


def test_a_gif_repeats_its_pictures(tmp_path):
    file = save_movie(frames(), tmp_path / 'new' / 'a.gif', fps=2)
    read = imageio.imread(file)
    assert read.shape == (2, 45, 65, 3)
    assert read[:, 20, 20].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert imageio.immeta(file)['duration'] == 500


def test_an_mp4_has_even_sizes(tmp_path):
    file = save_movie(frames(), tmp_path / 'a.mp4', fps=2)
    movie = cv2.VideoCapture(str(file))
    assert movie.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    _, image = movie.read()
    assert image.shape == (44, 64, 3)
    assert image[20, 20] == pytest.approx([0, 0, 255], abs=12)  # BGR


@pytest.mark.parametrize('suffix', ['gif', 'mp4'])
def test_frames_of_other_sizes_get_a_border(tmp_path, suffix):
    large, small = frames()
    file = save_movie([large, small[:20, :30], large], tmp_path / f'a.{suffix}', fps=2)
    movie = cv2.VideoCapture(str(file))
    read = [movie.read()[1] for _ in range(3)]
    assert {image.shape[0] // 2 for image in read} == {22}
    assert read[1][40, 60] == pytest.approx([255, 255, 255], abs=12)


def test_pixels_are_the_figure():
    assert np.unique(pixels(plain('lime')).reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]
