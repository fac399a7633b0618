"""The sides of the comparison and its table."""

import argparse

import pytest
import torch

from benchmarks import attention
from benchmarks.decoder_step import DecoderStep, RoutedSide
from projects.cmt_aqr.doctor.decoder_inputs import Size
from projects.cmt_aqr.usage_error import UsageError

CPU = torch.device('cpu')
TINY = Size(bev=(12, 10), image=(4, 6), camera_window=3)


@pytest.mark.parametrize('routed', attention.SIDES.values(), ids=attention.SIDES)
def test_every_side_takes_a_step_and_has_all_gradients(routed):
    step = DecoderStep(size=TINY, routed=routed, num_layers=2, device=CPU)
    laps = step()
    phases = {'inference', 'forward', 'backward', 'training'}
    assert laps.keys() == phases | {f'cpu/{phase}' for phase in phases}
    assert laps['training'] == laps['forward'] + laps['backward']
    assert step.facts.keys() == {'inference_memory'}
    assert all(p.grad is not None for p in step._decoder.parameters())
    if routed is not None:
        leaves = step._router.parameters() if routed.router else [step._weights]
        assert any(leaf.grad.any() for leaf in leaves)


@pytest.mark.parametrize('dense', [False, True])
def test_sides_are_compared_with_plain_attention(monkeypatch, dense):
    monkeypatch.setattr(attention, 'SIZES', {'tiny': TINY})
    sides = {attention.PLAIN: None, 'bias: dense': RoutedSide('dense')}
    monkeypatch.setattr(attention, 'SIDES', sides)
    args = argparse.Namespace(sizes=['tiny'], layers=1, dense=dense, dtype='bfloat16')
    vars(args).update(device=CPU, threads=1, rounds=1, warmup=0)
    report = attention.run(args)
    result = report.data['sizes']['tiny']
    assert list(result['sides']) == [*sides][: 1 + dense]
    plain = result['sides']['plain']
    for share in ('time_share', 'work_share', 'memory_share'):
        assert plain[share] == {'inference': 1, 'training': 1}, share
    assert plain['memory']['training'] >= plain['memory']['inference'] > 0
    lines = report.markdown.splitlines()
    assert f'tiny, {TINY.num_tokens} tokens:' in lines
    assert [line.split(' | ')[0] for line in lines[-1 - dense :]] == [
        f'| {name}' for name in result['sides']
    ]


def test_a_decoder_without_layers_is_refused():
    with pytest.raises(UsageError, match='--layers must be 1 or more, got 0'):
        attention.run(argparse.Namespace(layers=0))
