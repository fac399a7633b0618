import pytest
from PIL import Image
from robustness_fixture import make_comparison

from projects.cmt_aqr.evaluation.robustness_plot import draw_comparison


@pytest.mark.parametrize('names', [['alone'], ['control', 'router', 'camera']])
def test_a_picture_is_drawn_and_wider_with_differences(names, tmp_path):
    draw_comparison(make_comparison(*names), tmp_path / 'plot.png')
    with Image.open(tmp_path / 'plot.png') as picture:
        assert picture.width == (1650 if len(names) > 1 else 1050)
        assert len(picture.convert('RGB').getcolors(1 << 20)) > 10
