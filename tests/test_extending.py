"""The examples of docs/extending.md, run as they stand there."""

import re

import numpy as np
import pytest
import torch
from freezable import trainable, training
from mmdet3d.registry import DATASETS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from routings import BATCH, GROUPS, SIZES, TOKENS, make_inputs, make_weights, run

from projects.cmt_aqr.freezing import layers
from projects.cmt_aqr.transformer.backends import BACKENDS

EXAMPLE = re.compile(r'^```python\n# (my_project/\w+\.py)\n(.*?)^```', re.DOTALL | re.MULTILINE)


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
    assert len(EXAMPLE.findall(text)) == text.count('```python') == 7


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
