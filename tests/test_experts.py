"""The choice between the head of the detector and its experts, and what each decodes."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_state_dict
from test_detector import batch, cloud

from projects.cmt_aqr.freezing import fast_path_of
from projects.cmt_aqr.health import Health
from projects.cmt_aqr.inference import fold_for_inference

BELOW = dict(lidar=0.5, camera=0.3)


@pytest.fixture(scope='module')
def model_config(repo_root):
    init_default_scope('mmdet3d')
    config = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_synthetic_health.py').model
    return config.to_dict()


def build(model_config, experts=('lidar', 'camera'), below=None, **changes):
    torch.manual_seed(0)
    own = dict(
        type='ExpertDetector',
        experts=experts if isinstance(experts, dict) else dict.fromkeys(experts),
        below={sensor: BELOW[sensor] for sensor in experts} if below is None else below,
    )
    return MODELS.build({**copy.deepcopy(model_config), **own, **changes})


@pytest.fixture
def detector(model_config):
    """Each expert shifts all scores by a number of its own."""
    detector = build(model_config).eval()
    for shift, head in enumerate(detector.experts.values(), start=1):
        for bias in (p for n, p in head.task_heads.named_parameters() if 'cls' in n):
            bias.data.add_(shift if bias.dim() == 1 else 0)
    return detector


def logits(lidar, cameras):
    maps = torch.zeros(len(lidar), 1, 1)
    return Health(torch.tensor(lidar).logit(), torch.tensor(cameras).logit(), maps, maps[:, None])


def chosen(detector, lidar, cameras, mask=None):
    reported = logits(lidar, cameras)
    mask = torch.ones_like(reported.cameras, dtype=torch.bool) if mask is None else mask
    return detector.choose(reported, mask)


def test_the_sensor_further_below_its_threshold_chooses(detector):
    lidar = [0.9, 0.4, 0.9, 0.45, 0.3]
    cameras = [[0.9, 0.4], [0.9, 0.9], [0.9, 0.2], [0.9, 0.1], [0.25, 0.9]]
    expected = [None, 'lidar', 'camera', 'camera', 'lidar']
    assert chosen(detector, lidar, cameras) == expected


def test_an_absent_camera_is_not_unwell(detector):
    mask = torch.tensor([[True, False]])
    assert chosen(detector, [0.9], [[0.9, 0.01]], mask) == [None]


def test_one_expert_alone(model_config):
    detector = build(model_config, experts=['lidar'])
    assert chosen(detector, [0.9, 0.1], [[0.1, 0.9], [0.9, 0.9]]) == [None, 'lidar']


def test_each_sample_has_the_boxes_of_its_own_head(detector, monkeypatch):
    data = detector.data_preprocessor(batch([cloud() for _ in range(4)], (1,) * 4, (2,) * 4), False)
    reported = logits([0.9, 0.1, 0.9, 0.1], [[0.9, 0.9], [0.9, 0.9], [0.1, 0.9], [0.9, 0.9]])
    health = detector._health

    def report(*arguments):
        return reported, health(*arguments)[1]

    monkeypatch.setattr(detector, '_health', report)
    with torch.no_grad():
        features = detector.extract_feat(data['inputs'])
        found = detector(**copy.deepcopy(data), mode='predict')
        heads = [
            detector.pts_bbox_head,
            detector.experts['lidar'],
            detector.experts['camera'],
            detector.experts['lidar'],
        ]
        expected = [
            head.predict(*(maps[[i]] for maps in features), [data['data_samples'][i]])[0]
            for i, head in enumerate(heads)
        ]
    assert [sample.metainfo['expert'] for sample in found] == [None, 'lidar', 'camera', 'lidar']
    for sample, boxes in zip(found, expected, strict=True):
        torch.testing.assert_close(sample.pred_instances_3d.scores_3d, boxes.scores_3d)
        assert 'pred_health' in sample


def test_sound_frames_keep_the_boxes_of_the_detector(model_config, detector, monkeypatch):
    plain = MODELS.build(copy.deepcopy(model_config)).eval()
    state = detector.state_dict()
    plain.load_state_dict({k: v for k, v in state.items() if not k.startswith('experts')})
    monkeypatch.setattr(detector, 'below', dict(lidar=0.0, camera=0.0))
    data = detector.data_preprocessor(batch([cloud()], (1,), (2,)), False)
    with torch.no_grad():
        ours = detector(**copy.deepcopy(data), mode='predict')[0].pred_instances_3d
        theirs = plain(**data, mode='predict')[0].pred_instances_3d
    assert torch.equal(ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor)
    assert torch.equal(ours.scores_3d, theirs.scores_3d)


def test_only_the_monitor_trains(detector):
    trained = {n.split('.')[0] for n, p in detector.named_parameters() if p.requires_grad}
    assert trained == {'health_monitor'}
    detector.train()
    assert not any(m.training for m in detector.experts.modules() if 'Norm' in type(m).__name__)


def test_an_expert_takes_the_head_of_a_checkpoint(model_config, tmp_path):
    other = build(model_config, experts=['lidar'])
    state = {k: torch.full_like(v, 0.25) for k, v in other.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'other.pth')
    detector = build(
        model_config, experts=dict(lidar=str(tmp_path / 'other.pth')), below=dict(lidar=0.5)
    )
    detector.init_weights()
    assert all((p == 0.25).all() for p in detector.experts.parameters())
    assert not all((p == 0.25).all() for p in detector.pts_bbox_head.parameters())


@pytest.fixture
def expert_of(model_config, tmp_path):
    """Builds a detector before a training whose LiDAR expert is in a file with some weights."""

    def build_one(state):
        file = tmp_path / 'expert.pth'
        torch.save(dict(state_dict=state), file)
        detector = build(model_config, experts=dict(lidar=str(file)), below=dict(lidar=0.5))
        detector.init_weights()
        return detector

    return build_one


def plain_state(model_config):
    return {k: v for k, v in build(model_config).state_dict().items() if 'experts' not in k}


def moved(state, key):
    return {k: v + 1 if k == key else v for k, v in state.items()}


def test_an_expert_of_other_features_is_refused(model_config, expert_of):
    state = plain_state(model_config)
    neck = 'img_neck.fpn_convs.0.conv.weight'
    with pytest.raises(ValueError, match=rf'experts\.lidar: {neck} of .* knows other features'):
        load_state_dict(expert_of(state), moved(state, neck))
    # A monitor beside the expert, and a rounded file, are no other features.
    rounded = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    monitor = next(k for k in state if k.startswith('health_monitor.'))
    detector = expert_of(moved(rounded, monitor))
    load_state_dict(detector, state)
    load_state_dict(detector, moved(state, neck))  # in a test, files are not compared again


def test_an_expert_keeps_the_weights_of_its_file(model_config, expert_of):
    state = plain_state(model_config)
    scale = 'pts_bbox_head.shared_conv.conv.weight'
    own = scale.replace('pts_bbox_head', 'experts.lidar')
    with pytest.raises(ValueError, match=rf'{scale} of .* load_from has an expert of its own'):
        load_state_dict(expert_of(state), {**state, own: state[scale] + 1})
    routed = {**state, 'pts_bbox_head.router.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match='the head differs from that of this config'):
        load_state_dict(expert_of(routed), state)


def test_folding_serves_the_experts(detector):
    fold_for_inference(detector)
    for head in (detector.pts_bbox_head, *detector.experts.values()):
        assert fast_path_of(head.shared_conv) is not None
        assert head.position_cache is not None


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(experts={}, below={}), r'experts are of \[\]'),
        (dict(experts=dict(radar=None), below=dict(radar=0.5)), r"\['radar'\]; name some of"),
        (dict(experts=dict(lidar=None), below={}), r"give a health from 0 to 1 for \['lidar'\]"),
        (dict(experts=dict(lidar=None), below=dict(lidar=2)), r"below is {'lidar': 2}"),
        (dict(health_monitor=None), 'asks a health monitor'),
        (dict(planner=dict(type='ActionQueryHead')), 'reads one head alone'),
    ],
)
def test_mistakes_are_named(model_config, changes, message):
    with pytest.raises(ValueError, match=message):
        build(model_config, **changes)


@pytest.mark.parametrize('part', ['img_neck', 'pts_bbox_head'])
def test_a_detector_that_trains_is_refused(model_config, part):
    changes = {part: {**model_config[part], 'frozen': False}}
    with pytest.raises(ValueError, match='experts know the features of a frozen detector: set fro'):
        build(model_config, **changes)


def test_experts_may_come_with_load_from(model_config):
    """Then they have no file to be compared with."""
    detector = build(model_config, experts=dict(lidar=None))
    state = detector.state_dict()
    detector.init_weights()
    load_state_dict(detector, state)
