"""A model's parameters, operations and latency, and the tables of them."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import model
from benchmarks.model import InferenceStep
from benchmarks.timing import Spread
from benchmarks.workload import Workload
from projects.cmt_aqr.transformer import CrossAttention

CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def step(repo_root):
    """Inference of the tiny CMT with the recipe `frozen`."""
    config = repo_root / 'configs/cmt/cmt_tiny_synthetic_finetune.py'
    return InferenceStep(Workload(str(config)), device=CPU)


def test_every_phase_is_timed(step):
    times = step()
    assert {*model.PHASES, 'inference'} <= set(times)
    assert times['inference'] == pytest.approx(sum(times[phase] for phase in model.PHASES))
    assert all(times[phase] > 0 and times[f'cpu/{phase}'] > 0 for phase in model.PHASES)


def test_the_parts_make_up_the_model(step):
    facts = step.facts
    assert list(facts)[-1] == 'pts_bbox_head'
    counted = sum(part['trainable'] + part['frozen'] for part in facts.values())
    assert counted == sum(p.numel() for p in step.model.parameters())
    assert facts['img_backbone']['trainable'] == facts['pts_backbone']['trainable'] == 0
    assert facts['pts_bbox_head']['frozen'] == 0
    assert all(part['flops'] > 0 for part in facts.values())


def test_frozen_parts_compute_as_much_as_trained_ones(step, repo_root):
    """The copies that compute them are made before operations are counted."""
    config = str(repo_root / 'configs/cmt/cmt_tiny_synthetic.py')
    trained = InferenceStep(Workload(config), device=CPU, form='plain')
    for name in ('img_backbone', 'pts_backbone'):
        assert step.facts[name]['flops'] == trained.facts[name]['flops']


def test_the_model_finds_the_same_boxes_as_in_one_piece(step):
    """What is timed in pieces is the detector's own inference."""
    seen = []
    predict = step.model.pts_bbox_head.predict
    step.model.pts_bbox_head.predict = lambda *args: seen.append(predict(*args))
    step()
    step.model.pts_bbox_head.predict = predict
    with torch.no_grad():
        (whole,) = step.model.test_step(step.batch)
    (pieces,) = seen[0]
    assert torch.equal(pieces.scores_3d, whole.pred_instances_3d.scores_3d)


def test_the_tables():
    parts = {
        'img_backbone': dict(trainable=0, frozen=2_000_000, flops=3 * 10**9),
        'pts_bbox_head': dict(trainable=1_000_000, frozen=0, flops=10**9),
    }
    phases = (*model.PHASES, 'inference', 'product')
    seconds = dict.fromkeys(phases, Spread(0.5, 0.4, 0.6))
    lines = model._tables(
        {'cmt': dict(seconds=seconds, peak_memory=10**9, parts=parts)}
    ).splitlines()
    assert lines[2] == (
        '| cmt | 500.0 ms | 500.0 ms | 500.0 ms | 500.0 ms | 500.0 ms (400.0 ms–600.0 ms) '
        '| 2.00 | 1.00 GB |'
    )
    assert '| all | 1.00 M | 2.00 M | 4.0 |' in lines
    product = 2 * 2048**3  # of which the test says that it takes 0.4 s
    limits = [0.4 * count * 1e9 / product for count in (3, 1, 4)]
    assert lines[-3:] == [
        f'| {name} | {count}.0 | {1000 * limit:.1f} ms | 400.0 ms | {0.4 / limit:.2f} |'
        for name, count, limit in zip(
            ('camera', 'head', 'inference'), (3, 1, 4), limits, strict=True
        )
    ]


def test_operations_are_those_worked_out_by_hand():
    attention = CrossAttention(32, num_heads=4)
    query, tokens = torch.ones(1, 7, 32), torch.ones(1, 50, 32)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=model._KERNELS) as counter:
        attention(query, tokens, tokens)
    projections = 2 * 32 * 32 * (7 + 50 + 50 + 7)
    logits_and_output = 2 * 2 * 7 * 50 * 32
    assert counter.get_total_flops() == projections + logits_and_output
