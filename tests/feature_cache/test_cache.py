"""Batches put together from what is on disk and what is computed."""

import pytest
import torch

from projects.cmt_aqr.feature_cache import FeatureCache, FeatureStore, FixedPart, Lookup

CPU = torch.device('cpu')


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    store = FeatureStore(directory=tmp_path)
    return FeatureCache(store, {'camera': FixedPart(1, 'folder')})


def key(number: int) -> str:
    return f'{number:064x}'


def complete(cache: FeatureCache, lookups: list[Lookup], compute) -> list[torch.Tensor]:
    return cache.complete('camera', lookups, compute, device=CPU)


def test_only_what_is_missing_is_asked_for_and_all_come_in_order(cache):
    computed = torch.arange(3.0).view(3, 1, 1, 1, 1).expand(3, 2, 4, 5, 6)
    complete(cache, [Lookup(key(n)) for n in range(3)], lambda: [computed])
    fresh = torch.full((1, 2, 4, 5, 6), 7.0)
    lookups = [Lookup(key(2), 'folder'), Lookup(key(9)), Lookup(key(0), 'folder')]
    (maps,) = complete(cache, lookups, lambda: [fresh])
    assert maps.shape == (3, 2, 4, 5, 6)
    assert maps[:, 0, 0, 0, 0].tolist() == [2, 7, 0]
    assert maps.dtype == torch.float32
    assert cache.counts == {('camera', 'computed'): 4, ('camera', 'read'): 2}


def test_what_is_all_there_is_not_computed(cache):
    maps = [torch.randn(1, 2, 3), torch.randn(1, 4)]
    complete(cache, [Lookup(key(1))], lambda: maps)
    read = complete(cache, [Lookup(key(1), 'folder')], lambda: pytest.fail('computed'))
    assert [m.shape for m in read] == [(1, 2, 3), (1, 4)]


def test_it_makes_no_difference_whether_features_are_read_or_computed(cache):
    maps = torch.randn(1, 2, 3, 4, 4) * 100
    first = complete(cache, [Lookup(key(1))], lambda: [maps])[0]
    again = complete(cache, [Lookup(key(1), 'folder')], None)[0]
    assert torch.equal(first, again)
    assert not torch.equal(first, maps)
    torch.testing.assert_close(first, maps, rtol=1e-3, atol=1e-3)


def test_features_take_no_gradient_and_are_computed_in_full_precision(cache):
    weight = torch.ones(3, 3, requires_grad=True)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (maps,) = complete(cache, [Lookup(key(1))], lambda: [torch.full((1, 3), 1.001) @ weight])
    assert not maps.requires_grad
    assert maps[0, 0] == torch.tensor(3.003).half()  # bfloat16 gives 3.0


def test_samples_with_fewer_views_keep_their_own(cache):
    """The views up to the largest number are filled: with what, nobody is to look at."""
    maps = torch.ones(2, 3, 4, 5, 5)
    lookups = [Lookup(key(1), facts=dict(num_views=2)), Lookup(key(2), facts=dict(num_views=3))]
    both = complete(cache, lookups, lambda: [maps])[0]
    assert both[0].sum(dim=(1, 2, 3)).tolist() == [100, 100, 0]
    assert both[1].sum(dim=(1, 2, 3)).tolist() == [100, 100, 100]
    alone = complete(cache, [Lookup(key(1), 'folder')], None)[0]
    assert alone.shape == (1, 2, 4, 5, 5)


def test_maps_of_different_sizes_are_an_error(cache):
    complete(cache, [Lookup(key(1))], lambda: [torch.ones(1, 2, 4, 4)])
    lookups = [Lookup(key(1), 'folder'), Lookup(key(2))]
    with pytest.raises(ValueError, match=r'different shapes: .*ResizeCropFlipImage'):
        complete(cache, lookups, lambda: [torch.ones(1, 2, 4, 8)])


def test_counts_are_logged_once(cache, log):
    complete(cache, [Lookup(key(1))], lambda: [torch.ones(1, 2)])
    complete(cache, [Lookup(key(1), 'folder')], None)
    log.clear()
    cache.log_counts()
    cache.log_counts()
    assert log == ['feature cache: camera 1 read and 1 computed']
