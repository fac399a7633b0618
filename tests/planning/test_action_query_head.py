"""A planner on the frozen tiny CMT: what it reads, what it leaves alone, what learns."""

import numpy as np
import pytest
import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.config import Config
from mmengine.registry import init_default_scope

PLANNERS = [
    dict(type='ActionQueryHead', num_queries=3, num_heads=2, feedforward_channels=32),
    dict(
        type='ActionQueryHead',
        num_queries=3,
        num_heads=2,
        feedforward_channels=32,
        reads='objects',
        use_status=True,
        use_command=True,
    ),
    dict(type='EgoStatusHead', feedforward_channels=32),
]


@pytest.fixture(scope='module')
def model_config(repo_root):
    init_default_scope('mmdet3d')
    return Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_plan.py').model


def build(model_config, **planner):
    torch.manual_seed(0)
    config = {**model_config, 'planner': None}
    detector = MODELS.build(config)
    if planner:
        detector.planner = detector._build_planner(planner)
    return detector


def opened(detector):
    """Opens the gates and the last layer, which start at zero."""
    for name, parameter in detector.planner.named_parameters():
        if name.endswith('_gate') or name.startswith('to_step'):
            torch.nn.init.normal_(parameter) if parameter.dim() else parameter.data.fill_(0.5)
    return detector


def batch(detector, training=False):
    matrix = np.array([[88.0, -100, 0, 0], [32, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    limits = torch.tensor([25.0, 25.0, 2.5, 255.0, 0.5])
    generator = torch.Generator().manual_seed(1)
    samples = [
        Det3DDataSample(
            metainfo=dict(lidar2img=np.stack([matrix] * 2), box_type_3d=LiDARInstance3DBoxes)
        )
        for _ in range(2)
    ]
    inputs = dict(
        points=[(torch.rand(500, 5, generator=generator) * 2 - 1) * limits for _ in range(2)],
        img=[
            torch.randint(0, 255, (2, 3, 64, 176), dtype=torch.uint8, generator=generator)
            for _ in range(2)
        ],
        ego=dict(
            waypoints=[torch.rand(6, 3, generator=generator) for _ in range(2)],
            mask=[torch.ones(6), torch.tensor([1.0, 1, 0, 0, 0, 0])],
            status=[torch.rand(2, generator=generator) for _ in range(2)],
            command=[torch.eye(3)[i] for i in range(2)],
        ),
    )
    return detector.data_preprocessor(dict(inputs=inputs, data_samples=samples), training)


def predict(detector):
    detector.eval()
    with torch.no_grad():
        return detector(**batch(detector), mode='predict')


@pytest.mark.parametrize('planner', PLANNERS)
def test_boxes_are_those_without_a_planner(model_config, planner):
    plain = predict(build(model_config))
    planned = predict(opened(build(model_config, **planner)))
    for a, b in zip(plain, planned, strict=True):
        assert b.ego_plan.shape == (6, 3)
        for name in ('scores_3d', 'labels_3d'):
            assert torch.equal(a.pred_instances_3d[name], b.pred_instances_3d[name])
        assert torch.equal(
            a.pred_instances_3d.bboxes_3d.tensor, b.pred_instances_3d.bboxes_3d.tensor
        )
        assert 'ego_plan' not in a


@pytest.mark.parametrize('planner', PLANNERS)
def test_only_the_planner_learns(model_config, planner):
    detector = opened(build(model_config, **planner)).train()
    losses = detector(**batch(detector, training=True), mode='loss')
    assert set(losses) == {'loss_plan'}
    losses['loss_plan'].backward()
    learned = {name for name, p in detector.named_parameters() if p.grad is not None}
    assert learned == {
        name for name, _ in detector.named_parameters() if name.startswith('planner')
    }


def test_action_queries_start_equal_and_part(model_config):
    detector = opened(build(model_config, **PLANNERS[0])).train()
    assert not detector.planner.action_queries.any()
    detector(**batch(detector, training=True), mode='loss')['loss_plan'].backward()
    first, second, _ = detector.planner.action_queries.grad
    assert not torch.allclose(first, second)


def test_the_loss_is_the_mean_of_waypoints_that_exist(model_config):
    detector = build(model_config, **PLANNERS[0]).train()
    data = batch(detector, training=True)
    ego = data['inputs']['ego']
    # The last layer starts at zero, so the plan is to stand still.
    expected = torch.cat([ego['waypoints'][0], ego['waypoints'][1, :2]]).mean()
    loss = detector(**data, mode='loss')['loss_plan']
    assert loss.item() == pytest.approx(expected.item())


def test_the_loss_leaves_out_an_unknown_status_that_is_an_input(model_config):
    for use_status in (False, True):
        detector = build(model_config, **dict(PLANNERS[0], use_status=use_status)).train()
        data = batch(detector, training=True)
        ego = data['inputs']['ego']
        ego['status'][0] = torch.nan
        waypoints = [ego['waypoints'][1, :2], *([] if use_status else [ego['waypoints'][0]])]
        loss = detector(**data, mode='loss')['loss_plan']
        assert loss.item() == pytest.approx(torch.cat(waypoints).mean().item())


def test_an_unknown_status_is_taken_for_zero(model_config):
    detector = opened(build(model_config, **PLANNERS[2])).eval()
    plans = []
    for status in (torch.nan, 0.0):
        data = batch(detector)
        data['inputs']['ego']['status'][:] = status
        with torch.no_grad():
            plans.append(detector(**data, mode='predict')[0].ego_plan)
    assert torch.equal(*plans)
    assert plans[0].isfinite().all()


def test_a_plan_depends_on_where_the_object_queries_are(model_config):
    detector = opened(build(model_config, **dict(PLANNERS[0], reads='objects'))).eval()
    data = batch(detector)
    head, metas = detector.pts_bbox_head, [s.metainfo for s in data['data_samples']]
    with torch.no_grad():
        output = head(*detector.extract_feat(data['inputs']), metas)
        moved = output.states._replace(query_pos=output.states.query_pos.flip(1))
        here, there = (
            detector.planner(output._replace(states=states), head.transformer, None)
            for states in (output.states, moved)
        )
    assert not torch.allclose(here, there)


@pytest.mark.parametrize('reads', ['tokens', 'objects'])
def test_what_a_plan_gets_of_the_detector(model_config, reads):
    def plan(perception):
        options = dict(PLANNERS[0], reads=reads, perception=perception)
        detector = opened(build(model_config, **options))
        return torch.stack([sample.ego_plan for sample in predict(detector)])

    zeroed, shuffled, whole = plan('zeroed'), plan('shuffled'), plan('as_is')
    assert torch.equal(zeroed[0], zeroed[1])
    torch.testing.assert_close(shuffled, whole.flip(0))
    assert not torch.allclose(whole[0], whole[1])


def test_one_sample_cannot_be_shuffled(model_config):
    detector = build(model_config, **dict(PLANNERS[0], perception='shuffled')).eval()
    data = batch(detector)
    head, metas = detector.pts_bbox_head, [s.metainfo for s in data['data_samples']]
    features = [feature[:1] for feature in detector.extract_feat(data['inputs'])]
    with pytest.raises(ValueError, match='larger batch_size'):
        detector.planner(head(*features, metas[:1]), head.transformer, None)


def test_a_detector_that_trains_is_refused(model_config):
    config = {**model_config, 'img_neck': {**model_config['img_neck'], 'frozen': False}}
    with pytest.raises(ValueError, match=r'img_neck\..* other parameters are trained: set frozen'):
        MODELS.build(config)


def test_it_stands_beside_a_frozen_monitor(model_config):
    monitor = dict(type='HealthMonitor')
    with pytest.raises(ValueError, match=r'health_monitor\..* parameters are trained: set frozen'):
        MODELS.build({**model_config, 'health_monitor': monitor})
    detector = MODELS.build({**model_config, 'health_monitor': dict(monitor, frozen=True)})
    assert {n.split('.')[0] for n, p in detector.named_parameters() if p.requires_grad} == {
        'planner'
    }
    (sample, _) = detector.eval()(**batch(detector), mode='predict')
    assert {'pred_health', 'ego_plan'} <= {*sample.keys()}


def test_futures_of_another_length_are_refused(model_config):
    detector = build(model_config, **dict(PLANNERS[0], horizon=1)).train()
    with pytest.raises(ValueError, match=r'planner.horizon is 1, but the info files have 6 way'):
        detector(**batch(detector, training=True), mode='loss')


@pytest.mark.parametrize(('option', 'word'), [('reads', 'boxes'), ('perception', 'none')])
def test_unknown_words_are_refused(model_config, option, word):
    with pytest.raises(ValueError, match=f"planner.{option} is '{word}'"):
        build(model_config, **dict(PLANNERS[0], **{option: word}))


@pytest.mark.parametrize(('planner', 'mode'), [(PLANNERS[2], 'predict'), (PLANNERS[0], 'loss')])
def test_samples_without_futures_are_refused(model_config, planner, mode):
    detector = build(model_config, **planner).train(mode == 'loss')
    data = batch(detector)
    data['inputs'].pop('ego')
    with pytest.raises(ValueError, match='PackEgoFuture'):
        detector(**data, mode=mode)
