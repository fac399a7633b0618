"""The examples of docs/extending.md, run as they stand there."""

import importlib
import pickle
import re

import numpy as np
import pytest
import torch
from freezable import trainable, training
from mmdet3d.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from routings import BATCH, GROUPS, SIZES, TOKENS, make_inputs, make_weights, run

from projects.cmt_aqr.freezing import layers
from projects.cmt_aqr.transformer.backends import BACKENDS

EXAMPLE = re.compile(r'^```python\n# (my_project/\w+\.py)\n(.*?)^```', re.DOTALL | re.MULTILINE)
CAMERAS = {'front': 'CAM_FRONT', 'left': 'CAM_FRONT_LEFT', 'right': 'CAM_FRONT_RIGHT'}
TRUCK, WORKER = range(2)
LABELS = {0: TRUCK, 1: TRUCK, 8: WORKER}  # cars and trucks, pedestrians


@pytest.fixture(scope='module')
def root(repo_root, tmp_path_factory):
    """A folder with the files of the page, whose classes are registered for this module alone."""
    root = tmp_path_factory.mktemp('root')
    (root / 'my_project').mkdir()
    (root / 'configs').symlink_to(repo_root / 'configs')
    for name, code in EXAMPLE.findall((repo_root / 'docs/extending.md').read_text()):
        (root / name).write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        patch.chdir(root)
        patch.setattr(layers, '_FINDERS', dict(layers._FINDERS))
        for registry in (DATASETS, MODELS, TRANSFORMS):
            patch.setattr(registry, '_module_dict', dict(registry._module_dict))
        yield root


def read_config(root, name: str) -> Config:
    """A config of the page; reading it imports the modules that it names."""
    return Config.fromfile(root / f'my_project/{name}.py')


def test_every_block_of_code_is_an_example(repo_root):
    text = (repo_root / 'docs/extending.md').read_text()
    assert len(EXAMPLE.findall(text)) == text.count('```python') == 10


def test_a_backbone_is_frozen_by_its_layers(root):
    cfg = read_config(root, 'cmt_tiny_plain_convnet')
    weights = MODELS.build(dict(type='PlainConvNet', channels=[32, 64, 128])).state_dict()
    torch.save(weights, root / 'my_project/plain_convnet.pth')
    model = MODELS.build(cfg.model)
    model.init_weights()
    loaded = model.img_backbone.train()
    assert all(torch.equal(x, weights[name]) for name, x in loaded.state_dict().items())
    last = {'stages.1.0.weight', 'stages.1.1.weight', 'stages.1.1.bias'}
    assert trainable(loaded) == last
    assert training(loaded) & {'stem', 'stages.0.1', 'stages.1.1'} == {'stages.1.1'}
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    optimised = {id(parameter) for group in groups for parameter in group['params']}
    assert {name for name, p in loaded.named_parameters() if id(p) in optimised} == last
    maps = model.img_neck(loaded(torch.randn(2, 3, 64, 176)))
    assert maps[0].shape == (2, 64, 8, 22)


def test_a_failure_removes_what_it_reports_as_lost(root, synthetic_root):
    cfg = read_config(root, 'cmt_tiny_short_range')
    dataset = cfg.test_dataloader.dataset
    dataset.data_root = str(synthetic_root)
    dataset.pipeline[-1] = cfg.pack_health
    inputs = DATASETS.build(dataset)[0]['inputs']
    distance = inputs['points'][inputs['points'][:, 4] == 0, :2].norm(dim=1)  # of the keyframe
    assert 9 < distance.max() <= 10
    lidar = inputs['health']['lidar']
    assert (lidar[16, 16], lidar[0, 0], inputs['health']['camera'].min()) == (1, 0, 1)
    assert lidar.mean().item() == pytest.approx(np.pi * 10**2 / 51.2**2, abs=2e-3)


def test_training_draws_the_failure(root, synthetic_root):
    cfg = read_config(root, 'cmt_tiny_short_range')
    steps = [TRANSFORMS.build(step) for step in cfg.train_dataloader.dataset.pipeline[:2]]
    drawn = set()
    for epoch in range(200):
        steps[0].set_epoch(epoch)
        sample = steps[1](steps[0]({'token': 'a', 'images': {'front': {}}}))
        drawn |= {failure.key for failure in sample['failures']}
    reaches = {f'DrawnShortRange(reach={reach})' for reach in (20.0, 15.0, 10.0)}
    assert drawn == {
        *reaches,
        "DrawnLidarDrop(mode='empty')",
        "DrawnCameraDrop(cameras=('front',))",
    }


@pytest.mark.parametrize('grouping', GROUPS)
def test_all_back_ends_compute_the_routing_form(root, grouping):
    cfg = read_config(root, 'cmt_aqr_tiny_normalised_gate')
    form = MODELS.build(dict(cfg.model.pts_bbox_head.aqr.routing, num_heads=4))
    token_mask = torch.ones(BATCH, TOKENS, dtype=torch.bool)
    token_mask[0, SIZES[0] :] = False  # no camera
    token_mask[1, : SIZES[0] // 2] = False
    routing = form(make_weights(grouping), groups=GROUPS[grouping])
    inputs = make_inputs()
    expected = run(BACKENDS['dense'], inputs, routing, token_mask)
    for name in {*BACKENDS} - {'dense'}:
        found = run(BACKENDS[name], inputs, routing, token_mask)
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert all(gradient.isfinite().all() for gradient in expected[1].values())


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_weight_of_zero_leaves_attention_unchanged(root, backend):
    cfg = read_config(root, 'cmt_aqr_tiny_normalised_gate')
    router = MODELS.build(cfg.model).pts_bbox_head.router
    form = router.attention_bias_generator
    assert type(form).__name__ == 'NormalisedGate'
    inputs = make_inputs()
    weights = torch.zeros_like(make_weights())
    routing = form(weights, groups=GROUPS['modality'])
    found = BACKENDS[backend](**inputs, routing=routing, token_mask=None)
    plain = torch.nn.functional.scaled_dot_product_attention(*inputs.values())
    torch.testing.assert_close(found, plain)


def yard_entry(info: dict) -> dict:
    """A sample of the synthetic database with other cameras, classes and no more than needed."""
    cameras = {
        name: {key: info['images'][camera][key] for key in ('img_path', 'cam2img', 'lidar2cam')}
        for name, camera in CAMERAS.items()
    }
    return {
        **{key: info[key] for key in ('token', 'sample_idx', 'timestamp')},
        'lidar_points': {key: info['lidar_points'][key] for key in ('lidar_path', 'num_pts_feats')},
        'images': cameras,
        'instances': [
            {
                'bbox_3d': box['bbox_3d'],
                'bbox_label_3d': LABELS[box['bbox_label_3d']],
                'velocity': box['velocity'],
            }
            for box in info['instances']
            if box['bbox_label_3d'] in LABELS
        ],
    }


def names_in(entry: object) -> object:
    """The keys of an entry at every level; of a list of dicts, those of the first."""
    if isinstance(entry, dict):
        return {key: names_in(value) for key, value in entry.items()}
    if isinstance(entry, list) and entry and isinstance(entry[0], dict):
        return names_in(entry[0])
    return None


@pytest.fixture
def yard(root, synthetic_root):
    """The config of the yard, on samples of the synthetic database."""
    cfg = read_config(root, 'cmt_tiny_yard')
    for split, loader in (('train', cfg.train_dataloader), ('val', cfg.test_dataloader)):
        content = pickle.loads((synthetic_root / f'nuscenes_infos_{split}.pkl').read_bytes())
        entries = [yard_entry(info) for info in content['data_list']]
        file = root / loader.dataset.ann_file
        file.write_bytes(pickle.dumps({'metainfo': {}, 'data_list': entries}))
        assert {*loader.dataset.data_prefix} == {'pts', *CAMERAS}
        folders = {name: f'samples/{camera}' for name, camera in CAMERAS.items()}
        loader.dataset.data_prefix.update(folders, pts='samples/LIDAR_TOP')
        loader.dataset.update(data_root=str(synthetic_root), ann_file=str(file))
    cfg.example = importlib.import_module('my_project.yard_entry').entry
    cfg.entries = entries
    return cfg


def test_the_entry_of_the_page_has_the_keys_that_samples_need(yard):
    assert names_in(yard.entries[0]) == names_in(yard.example)


def test_another_rig_and_its_classes_train(yard):
    dataset = DATASETS.build(yard.train_dataloader.dataset)
    dataset.pipeline.transforms[0].set_epoch(0)
    batch = pseudo_collate([dataset[0], dataset[1]])
    assert [len(images) for images in batch['inputs']['img']] == [3, 3]
    info = dataset.get_data_info(0)
    assert [*info['images']] == ['front', 'left', 'right']
    boxes = info['ann_info']['gt_bboxes_3d']
    annotated = [[*box['bbox_3d'], *box['velocity']] for box in info['instances']]
    read = torch.cat([boxes.gravity_center, boxes.tensor[:, 3:]], dim=1)
    torch.testing.assert_close(read, torch.tensor(annotated))
    labels = torch.cat([item.gt_instances_3d.labels_3d for item in batch['data_samples']])
    assert {*labels.tolist()} == {TRUCK, WORKER}
    model = MODELS.build(yard.model).train()
    losses = model(**model.data_preprocessor(batch, training=True), mode='loss')
    assert all(value.isfinite().all() for value in losses.values())


def test_another_rig_is_tested_and_its_predictions_saved(yard, tmp_path):
    dataset = DATASETS.build(yard.test_dataloader.dataset)
    model = MODELS.build(yard.model).eval()
    with torch.no_grad():
        found = model.test_step(pseudo_collate([dataset[0]]))
    yard.test_evaluator.out_file_path = str(tmp_path / 'yard.pkl')
    evaluator = Evaluator(dict(yard.test_evaluator))
    evaluator.process(data_samples=found)
    evaluator.evaluate(1)
    (saved,) = pickle.loads((tmp_path / 'yard.pkl').read_bytes())
    assert saved['pred_instances_3d']['labels_3d'].max() <= WORKER
