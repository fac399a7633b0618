"""The share of an image that GridMask keeps, and when it does nothing."""

import pytest
import torch

from projects.cmt_aqr.grid_mask import GridMask


def draws(mask: GridMask, count: int = 200, height: int = 64, width: int = 96) -> torch.Tensor:
    """Kept share of each of `count` masks."""
    return torch.stack([mask(torch.ones(2, 3, height, width)).mean() for _ in range(count)])


@pytest.mark.parametrize('ratio', [0.3, 0.5, 0.7])
def test_kept_share_is_that_of_the_stripes(ratio):
    shares = draws(GridMask(prob=1.0, ratio=ratio))
    assert shares.mean().item() == pytest.approx(1 - (1 - ratio) ** 2, abs=0.03)


def test_mode_0_keeps_the_squares():
    shares = draws(GridMask(prob=1.0, ratio=0.4, mode=0))
    assert shares.mean().item() == pytest.approx(0.36, abs=0.03)


def is_upright(kept: torch.Tensor) -> bool:
    """Whether all kept pixels (H, W) are in whole rows or whole columns."""
    rows, columns = kept.all(dim=1), kept.all(dim=0)
    return torch.equal(kept, rows[:, None] | columns)


@pytest.mark.parametrize('rotate', [1, 90])
def test_stripes_are_rows_and_columns_without_rotation_alone(rotate):
    torch.manual_seed(1)
    mask = GridMask(prob=1.0, rotate=rotate)
    upright = [is_upright(mask(torch.ones(1, 1, 64, 48))[0, 0].bool()) for _ in range(20)]
    assert all(upright) if rotate == 1 else not any(upright[:5])


def test_share_of_masked_calls():
    masked = draws(GridMask(prob=0.7), count=400) < 1
    assert masked.float().mean().item() == pytest.approx(0.7, abs=0.07)


def test_images_of_a_call_share_a_mask_and_keep_their_values():
    images = torch.rand(4, 3, 32, 48) + 1
    masked = GridMask(prob=1.0)(images)
    kept = masked != 0
    assert torch.equal(kept, kept[:1, :1].expand_as(kept))
    assert torch.equal(masked[kept], images[kept])
    assert 0 < kept.float().mean() < 1


def test_identity_without_training_or_probability():
    images = torch.rand(2, 3, 16, 16)
    assert GridMask(prob=1.0).eval()(images) is images
    assert GridMask(prob=0.0)(images) is images


@pytest.mark.parametrize('shape', [(1, 3, 1, 8), (1, 3, 2, 2), (1, 3, 3, 1)])
def test_smallest_images(shape):
    assert GridMask(prob=1.0)(torch.ones(shape)).shape == shape


@pytest.mark.parametrize(
    'arguments',
    [dict(prob=1.1), dict(ratio=0.0), dict(ratio=1.0), dict(mode=2), dict(rotate=0)],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(ValueError, match='GridMask needs'):
        GridMask(**arguments)
