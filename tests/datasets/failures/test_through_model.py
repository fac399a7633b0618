"""Every failure at its worst goes through the loaders and the tiny model."""

import copy
from types import SimpleNamespace

import pytest
import torch
from mmdet3d.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from projects.cmt_aqr.cli.config_changes import add_failure
from projects.cmt_aqr.data_preparation.single_frame import make_frame_root
from projects.cmt_aqr.datasets.failures.suite import protocol

FAILURES = {
    row.name: list(row.conditions.values())[-1] for row in protocol('all', ann_file='of the data')
}
FAILURES['zeros'] = dict(type='LidarDrop', mode='zeros')


@pytest.fixture(scope='module', params=['synthetic', 'real_frame'])
def tested(request, repo_root, tmp_path_factory):
    """A config on a data root that is there, its model with random weights, and a sample's place.

    The synthetic one is the second of its scene, so that there is a frame before it.
    """
    if request.param == 'synthetic':
        root, index = request.getfixturevalue('synthetic_root'), 1
    else:
        frame = request.getfixturevalue('real_frame')
        root, index = make_frame_root(frame, tmp_path_factory.mktemp('frame') / 'root'), 0
    cfg = Config.fromfile(repo_root / f'configs/cmt/cmt_tiny_{request.param}.py')
    cfg.test_dataloader.dataset.data_root = str(root)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        model = MODELS.build(cfg.model).eval()
    return SimpleNamespace(cfg=cfg, model=model, index=index, name=request.param)


def load(tested, failure: dict) -> dict:
    """The sample as the test pipeline packs it, with its health, by a seed that does not spare it.

    Where there is none, it is that of the sample as it is.
    """
    cfg = copy.deepcopy(tested.cfg)
    dataset = cfg.test_dataloader.dataset
    if 'ann_file' in failure:
        failure = dict(failure, ann_file=f'{dataset.data_root}/{dataset.ann_file}')
    info = DATASETS.build(dict(dataset, pipeline=[])).get_data_info(tested.index)
    failures = (dict(failure, seed=seed) for seed in range(10))
    failure = next((one for one in failures if fails(one, info)), failure)
    add_failure(cfg, failure)
    dataset.pipeline[-1] = cfg.pack_health
    return DATASETS.build(dataset)[tested.index]


def fails(failure: dict, info: dict) -> bool:
    return bool(TRANSFORMS.build(failure)(copy.deepcopy(info))['failures'])


@pytest.mark.parametrize('name', FAILURES)
def test_no_failure_stops_the_model(tested, name):
    sample = load(tested, FAILURES[name])
    health = sample['inputs']['health']
    # The scenes are shorter than the two seconds of a frozen camera.
    nothing_before = name == 'frozen_camera' or (
        name.startswith('stale') and tested.name == 'real_frame'
    )
    assert all((maps == 1).all() for maps in health.values()) == nothing_before
    with torch.no_grad():
        (found,) = tested.model.test_step(pseudo_collate([sample]))
    boxes = found.pred_instances_3d
    assert boxes.bboxes_3d.tensor.isfinite().all()
    assert boxes.scores_3d.isfinite().all()
