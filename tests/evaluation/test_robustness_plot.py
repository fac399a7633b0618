import pytest
from matplotlib.figure import Figure
from PIL import Image
from robustness_fixture import make_comparison

from projects.cmt_aqr.evaluation.robustness_plot import _draw_differences, draw_comparison


@pytest.mark.parametrize('names', [['alone'], ['control', 'router', 'camera']])
def test_a_picture_is_drawn_and_wider_with_differences(names, tmp_path):
    draw_comparison(make_comparison(*names), tmp_path / 'plot.png')
    with Image.open(tmp_path / 'plot.png') as picture:
        assert picture.width == (1650 if len(names) > 1 else 1050)
        assert len(picture.convert('RGB').getcolors(1 << 20)) > 10


def test_differences_are_those_from_the_first_model_with_their_intervals():
    comparison = make_comparison('control', 'router')
    axes = Figure().subplots()
    _draw_differences(axes, comparison, ['clean', 'fog'])
    due = [comparison.difference(comparison.models[1], row, 'nds') for row in ('clean', 'fog')]
    points = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == len(due)][-1]
    assert [*points] == pytest.approx([100 * change.value for change in due])
    ends = [segment[:, 0] for lines in axes.collections for segment in lines.get_segments()]
    for change, found in zip(due, ends, strict=True):
        assert [*found] == pytest.approx([100 * end for end in change.interval])
