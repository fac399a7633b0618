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


def test_a_gif_repeats_its_pictures(tmp_path):
    file = save_movie([plain('red'), plain('blue')], tmp_path / 'new' / 'a.gif', fps=2)
    frames = imageio.imread(file)
    assert frames.shape == (2, 45, 65, 3)
    assert frames[:, 20, 20].tolist() == [[255, 0, 0], [0, 0, 255]]
    assert imageio.immeta(file)['duration'] == 500


def test_an_mp4_has_even_sizes(tmp_path):
    file = save_movie([plain('red'), plain('blue')], tmp_path / 'a.mp4', fps=2)
    movie = cv2.VideoCapture(str(file))
    assert movie.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    _, image = movie.read()
    assert image.shape == (44, 64, 3)
    assert image[20, 20] == pytest.approx([0, 0, 255], abs=12)  # BGR


def test_pixels_are_the_figure():
    assert np.unique(pixels(plain('lime')).reshape(-1, 3), axis=0).tolist() == [[0, 255, 0]]
