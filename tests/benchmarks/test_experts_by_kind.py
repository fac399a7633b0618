"""Which expert decodes a frame with a damaged LiDAR, and where its weights come from."""

import copy

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from benchmarks.routing.experts_by_kind import KINDS, join, kinds_of
from projects.cmt_aqr.health import Health

CONFIG = 'benchmarks/routing/cmt_tiny_streets_experts_by_kind.py'


def maps() -> dict[str, torch.Tensor]:
    """Health (h, w) as the monitor reports it under each kind of damage."""
    sector = torch.zeros(12, 12)
    sector[:, :4] = 1
    objects = torch.ones(12, 12)
    objects[3:5, 3:5] = 0
    return dict(
        lidar_drop=torch.full((12, 12), 0.05),
        limited_fov=sector,
        object_failure=objects,
        thinned=torch.full((12, 12), 0.25),
    )


def test_the_map_tells_the_kinds_apart():
    assert kinds_of(torch.stack([*maps().values()])) == [*maps()] == [*KINDS]


@pytest.fixture(scope='module')
def detector(repo_root):
    init_default_scope('mmdet3d')
    torch.manual_seed(0)
    return MODELS.build(Config.fromfile(repo_root / CONFIG).model).eval()


def test_a_sound_frame_and_one_with_a_bad_camera_have_no_kind(detector):
    cells = torch.stack([*maps().values(), torch.ones(12, 12), torch.ones(12, 12)])
    lidar = torch.tensor([0.1] * 4 + [0.9, 0.9])
    cameras = torch.tensor([[0.9]] * 5 + [[0.1]])
    logits = Health(lidar.logit(), cameras.logit(), cells.logit(eps=1e-6), cells[:, None])
    chosen = detector.choose(logits, torch.ones(6, 1, dtype=torch.bool))
    assert chosen == [*KINDS, None, 'camera']


def test_joined_weights_fill_the_detector(detector, repo_root):
    plain = Config.fromfile(repo_root / 'configs/cmt/cmt_tiny_streets.py').model
    cmt = MODELS.build(plain).state_dict()
    with_experts = {k: v for k, v in detector.state_dict().items() if not k.startswith('experts.l')}
    states = {}
    for number, kind in enumerate(KINDS):
        states[kind] = {k: torch.full_like(v, number) for k, v in cmt.items()}
    other = copy.deepcopy(detector)
    other.load_state_dict(join(cmt, with_experts, states))
    for number, kind in enumerate(KINDS):
        assert all((p == number).all() for p in other.experts[kind].parameters())
    assert other.pts_bbox_head.reference_points.weight.equal(
        cmt['pts_bbox_head.reference_points.weight']
    )
