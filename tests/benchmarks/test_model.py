"""A model's parameters, operations and latency, and the tables of them."""

import pytest
import torch
from mmdet3d.structures import Det3DDataSample
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


def found(step: InferenceStep) -> list[Det3DDataSample]:
    """Samples that one timed run of a model returns."""
    seen = []
    predict_from = step.model.predict_from
    step.model.predict_from = lambda *args: seen.append(predict_from(*args))
    step()
    step.model.predict_from = predict_from
    return seen[0]


def test_the_model_finds_the_same_boxes_as_in_one_piece(step):
    """What is timed in pieces is the detector's own inference."""
    with torch.no_grad():
        (whole,) = step.model.test_step(step.batch)
    (pieces,) = found(step)
    assert torch.equal(pieces.pred_instances_3d.scores_3d, whole.pred_instances_3d.scores_3d)


@pytest.mark.parametrize(('below', 'expert'), [(0.0, None), (1.0, 'lidar')])
def test_a_monitor_and_the_experts_are_timed(repo_root, below, expert):
    options = {'model.experts.camera': None, 'model.experts.lidar': None}
    options |= {'model.below.lidar': below, 'model.below.camera': 0.0}
    config = repo_root / 'configs/cmt/cmt_tiny_streets_experts.py'
    step = InferenceStep(Workload(str(config), options), device=CPU)
    (sample,) = found(step)
    times = step()
    assert 0 < times['health_monitor'] < times['head']
    assert times['inference'] == pytest.approx(sum(times[phase] for phase in model.PHASES))
    assert sample.expert == expert
    assert 0 < sample.pred_health.lidar < 1
    decoders = [step.facts['pts_bbox_head']['flops'], step.facts['experts']['flops']]
    assert [flops > 0 for flops in decoders] == [expert is None, expert is not None]
    assert step.facts['health_monitor']['flops'] > 0


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


def test_the_share_of_a_part_beside_cmt():
    seconds = {'health_monitor': Spread(0.1, 0.1, 0.2), 'inference': Spread(1.0, 0.9, 1.1)}
    seconds |= {'cpu/health_monitor': Spread(0.03, 0.1, 0.2), 'cpu/inference': Spread(2.0, 1, 2)}
    assert model._added('health_monitor', seconds) == (
        'health_monitor: 100.0 ms (100.0 ms–200.0 ms) of the head, 1.5% of the work of inference '
        '(processor time on a CPU).'
    )


def test_operations_are_those_worked_out_by_hand():
    attention = CrossAttention(32, num_heads=4)
    query, tokens = torch.ones(1, 7, 32), torch.ones(1, 50, 32)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=model._KERNELS) as counter:
        attention(query, tokens, tokens)
    projections = 2 * 32 * 32 * (7 + 50 + 50 + 7)
    logits_and_output = 2 * 2 * 7 * 50 * 32
    assert counter.get_total_flops() == projections + logits_and_output
