"""The written file: loaded alike by torch and by mmengine, and enough for the freeze audit."""

import hashlib

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from published_files import answer, as_mome, as_spconv1, fill_at_random, save
from spconv.pytorch import SparseModule
from torch import nn

import projects.cmt_aqr  # noqa: F401
from projects.cmt_aqr.conversion import convert, read_source, write_checkpoint
from projects.cmt_aqr.freezing.audit import Kind
from projects.cmt_aqr.freezing.verify import verify

CMT = 'cmt/cmt_tiny_synthetic_finetune'
ROUTED = 'cmt_aqr/cmt_aqr_tiny_synthetic'


@pytest.fixture(scope='module')
def read(repo_root):
    return lambda name: Config.fromfile(repo_root / f'configs/{name}.py')


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet3d'):
        return MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def published(read) -> nn.Module:
    return fill_at_random(build(read(CMT)))


@pytest.fixture
def converted(read, published, tmp_path):
    """Convert a state dict, by way of files, for a config."""

    def converted(state: dict, config: str = CMT):
        source = read_source(save(tmp_path / 'published.pth', state))
        path = tmp_path / 'converted.pth'
        conversion = convert(source.state, build(read(config)))
        write_checkpoint(path, conversion, source, config=config)
        return path

    return converted


def load_by_torch(model, path):
    model.load_state_dict(torch.load(path, weights_only=True)['state_dict'], strict=True)


def load_by_mmengine(model, path):
    load_checkpoint(model, str(path), strict=True)


@pytest.mark.parametrize('load', [load_by_torch, load_by_mmengine])
@pytest.mark.parametrize('layout', [dict, as_spconv1], ids=['spconv 2', 'spconv 1'])
@pytest.mark.parametrize('loader', ['patched', 'of mmdet3d'])
def test_outputs_are_equal(read, published, converted, monkeypatch, load, layout, loader):
    path = converted(layout(published.state_dict()))
    if loader == 'of mmdet3d':  # which permutes whatever is not marked as of version 2
        patched = SparseModule._load_from_state_dict
        monkeypatch.setattr(SparseModule, '_load_from_state_dict', patched.__wrapped__)
    model = build(read(CMT))
    load(model, path)
    torch.testing.assert_close(answer(model), answer(published), rtol=0, atol=0)


def test_the_file_says_how_it_came_about(published, converted, tmp_path):
    file = torch.load(converted(as_mome(published.state_dict()), ROUTED), weights_only=True)
    assert file.keys() == {'meta', 'state_dict'}
    meta = file['meta']
    assert (meta['converted_from'], meta['layout'], meta['config']) == (
        'published.pth',
        'MoME',
        ROUTED,
    )
    content = (tmp_path / 'published.pth').read_bytes()
    assert meta['sha256'] == hashlib.sha256(content).hexdigest()
    assert len(meta['left_out']) == 27
    assert len(meta['missing']) == 4
    assert {path.name for path in tmp_path.iterdir()} == {'published.pth', 'converted.pth'}


@pytest.mark.parametrize('config', [CMT, ROUTED])
def test_the_freeze_audit_passes(read, published, converted, config):
    cfg = read(config)
    cfg.load_from = str(converted(as_spconv1(published.state_dict()), config))
    found = verify(cfg, epoch_length=20)
    assert found.describe()['state'] == 'passed'
    assert len(found.frozen.loadable) == 210
    assert {found.filled[name] for name in found.frozen.loadable} == {cfg.load_from}


def test_the_freeze_audit_still_sees_what_pretraining_does_not_fill(read, published, converted):
    cfg = read(CMT)
    backbone = {f'backbone.{n}': v for n, v in published.img_backbone.state_dict().items()}
    cfg.load_from = str(converted(backbone))
    (violation,) = verify(cfg, epoch_length=20).violations
    assert violation.kind is Kind.UNFILLED
    parts = {name.split('.')[0] for name in violation.names}
    assert parts == {'pts_middle_encoder', 'pts_backbone', 'pts_neck'}
