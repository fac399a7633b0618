"""When a kept value is used again."""

import copy

import pytest
import torch
from torch import nn

from projects.cmt_aqr.position_cache import PositionCache


@pytest.fixture
def module() -> nn.Module:
    return nn.Linear(1, 1)


@pytest.fixture
def cache(module) -> PositionCache:
    return PositionCache(module)


@torch.no_grad()
def test_a_value_is_kept_until_key_or_weights_change(module, cache):
    def count(name: str, key: int) -> int:
        return cache(name, key, lambda: next(numbers))

    numbers = iter(range(10))
    assert [count('a', 1), count('a', 1), count('b', 1), count('a', 1)] == [0, 0, 1, 0]
    assert [count('a', 2), count('a', 1)] == [2, 3]  # the latest alone
    module.weight.add_(1)
    assert count('a', 1) == 4
    cache.clear()
    assert count('a', 1) == 5
    assert copy.deepcopy(cache)('a', 1, lambda: 'new') == 'new'


def test_with_gradients_nothing_is_kept(module, cache):
    first, second = (cache('a', 1, lambda: module(torch.ones(1))) for _ in range(2))
    assert first is not second
    with torch.no_grad():
        assert not cache('a', 1, lambda: module(torch.ones(1))).requires_grad
    assert cache('a', 1, lambda: module(torch.ones(1))).requires_grad
