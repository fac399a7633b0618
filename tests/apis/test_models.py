"""Models by name, and the line about each wrong one."""

import pytest
import torch

from projects.cmt_aqr import paths
from projects.cmt_aqr.apis import init_detector, shipped_models
from projects.cmt_aqr.freezing import fast_path_of
from projects.cmt_aqr.usage_error import UsageError


def test_every_shipped_file_has_a_name():
    models = shipped_models()
    assert {model.weights for model in models.values()} == {*paths.weights().glob('*.pth')}
    assert all(model.config.is_file() for model in models.values())


def test_the_page_has_every_name(repo_root):
    page = (repo_root / 'docs/inference.md').read_text()
    assert [name for name in shipped_models() if f'`{name}`' not in page] == []


def test_a_name_gives_the_weights_that_its_file_has(detector):
    config, weights = shipped_models()['cmt_tiny_synthetic']
    assert not detector.training
    assert detector.cfg.filename == str(config)
    state = torch.load(weights, weights_only=True)['state_dict']
    name = 'pts_bbox_head.reference_points.weight'
    assert detector.state_dict()[name].equal(state[name].float())


def test_settings_can_be_changed():
    options = {'model.pts_bbox_head.box_coder.max_num': 7}
    model = init_detector('cmt_tiny_synthetic', device='cpu', cfg_options=options)
    assert model.pts_bbox_head.box_coder.max_num == 7


def test_a_detector_is_folded_in_the_precision_asked_for(detector):
    half = init_detector('cmt_tiny_synthetic', device='cpu', dtype='bfloat16')
    dtypes = [fast_path_of(model.img_backbone).dtype for model in (detector, half)]
    assert dtypes == [None, torch.bfloat16]
    with pytest.raises(UsageError, match='float16 needs a GPU'):
        init_detector('cmt_tiny_synthetic', device='cpu', dtype='float16')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (
            ['cmt_tiny_syntetic'],
            r'neither a config file nor a shipped .* mean cmt_tiny_synthetic\?',
        ),
        (['CONFIG'], r'needs a checkpoint; models with their own are .*cmt_tiny_synthetic'),
        (['cmt_tiny_synthetic', 'none.pth'], 'checkpoint none.pth does not exist'),
        (['ROUTED', 'WEIGHTS'], r'does not fit .* missing: pts_bbox_head.router'),
    ],
)
def test_a_mistake_is_one_line(arguments, message):
    config, weights = shipped_models()['cmt_tiny_synthetic']
    routed = shipped_models()['cmt_aqr_tiny_synthetic_failures'].config
    stand_for = dict(CONFIG=config, WEIGHTS=weights, ROUTED=routed)
    with pytest.raises(UsageError, match=message) as error:
        init_detector(*[stand_for.get(word, word) for word in arguments], device='cpu')
    assert '\n' not in str(error.value)
