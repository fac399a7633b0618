"""The sides of the comparison, what is left out of it, and its table."""

import argparse

import pytest
import torch

from projects.cmt_aqr.benchmarks import attention
from projects.cmt_aqr.benchmarks.attention_step import (
    NUM_CAMERAS,
    NUM_QUERIES,
    Ask,
    DecoderStep,
    Size,
    random_windows,
)
from projects.cmt_aqr.usage_error import UsageError

CPU = torch.device('cpu')
TINY = Size(bev=(12, 10), image=(4, 6), camera_window=3)


@pytest.mark.parametrize(
    ('name', 'tokens'), [('r50', 22_384), ('vov', 56_400), ('vov_x4', 225_600)]
)
def test_sizes_are_those_of_the_released_models(name, tokens):
    assert attention.SIZES[name].num_tokens == tokens


def test_queries_have_windows_in_as_many_cameras_as_on_the_real_frame():
    bev, cameras = random_windows(TINY, CPU)
    assert bev.query.tolist() == list(range(NUM_QUERIES))
    assert cameras.token.min() >= TINY.layout.lidar_tokens
    seen_by = torch.bincount(cameras.query, minlength=NUM_QUERIES).bincount(minlength=3)
    shares = seen_by / NUM_QUERIES
    torch.testing.assert_close(shares, torch.tensor([0.025, 0.85, 0.125]), atol=0.05, rtol=0)
    assert cameras.group.max() == NUM_CAMERAS


@pytest.mark.parametrize('ask', attention.SIDES.values(), ids=attention.SIDES)
def test_every_side_takes_a_step_and_has_all_gradients(ask):
    step = DecoderStep(size=TINY, ask=ask, num_layers=2, device=CPU)
    laps = step()
    phases = {'inference', 'forward', 'backward', 'training'}
    assert laps.keys() == phases | {f'cpu/{phase}' for phase in phases}
    assert laps['training'] == laps['forward'] + laps['backward']
    assert step.inference_memory is not None
    assert all(p.grad is not None for p in step._decoder.parameters())
    if ask is not None:
        leaves = step._router.parameters() if ask.router else [step._weights]
        assert any(leaf.grad.any() for leaf in leaves)


def test_dense_sides_are_left_out_where_memory_is_short():
    r50 = attention.SIZES['r50']
    assert attention.too_large(r50, 1, free=10**12) == {}
    dense = {name for name, ask in attention.SIDES.items() if ask and ask.backend == 'dense'}
    reasons = attention.too_large(r50, 1, free=10**9)
    assert reasons.keys() == dense
    assert reasons['bias: dense'] == 'needs about 2.58 GB; 1.00 GB are free'
    # Three tensors of 0.64 GB more for each further layer.
    assert 'about 12.25 GB' in attention.too_large(r50, 6, free=10**9)['bias: dense']


def test_sides_are_held_against_plain_attention_in_a_table(monkeypatch):
    monkeypatch.setattr(attention, 'SIZES', {'tiny': TINY})
    sides = {attention.PLAIN: None, 'bias: folded': Ask('folded'), 'bias: dense': Ask('dense')}
    monkeypatch.setattr(attention, 'SIDES', sides)
    args = argparse.Namespace(
        sizes=['tiny'],
        layers=1,
        no_dense=True,
        dtype='bfloat16',
        device=CPU,
        threads=1,
        rounds=1,
        warmup=0,
    )
    report = attention.run(args)
    result = report.data['sizes']['tiny']
    assert list(result['sides']) == ['plain', 'bias: folded']
    assert result['left_out'] == {'bias: dense': 'not asked for'}
    plain = result['sides']['plain']
    for share in ('time_share', 'work_share', 'memory_share'):
        assert plain[share] == {'inference': 1, 'training': 1}, share
    assert plain['memory']['training'] >= plain['memory']['inference'] > 0
    lines = report.markdown.splitlines()
    assert f'tiny, {TINY.num_tokens} tokens:' in lines
    assert [line for line in lines if line.startswith('| bias: folded | ')]
    assert lines[-1] == 'Left out: bias: dense, not asked for.'


def test_a_decoder_without_layers_is_refused():
    with pytest.raises(UsageError, match='--layers must be 1 or more, got 0'):
        attention.run(argparse.Namespace(layers=0))
