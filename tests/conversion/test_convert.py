"""Published weights of tiny models: equal outputs, and every key accounted for."""

import copy
import hashlib

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from published_files import (
    ROUTER,
    SPARSE_PART,
    TRANSFORMER,
    answer,
    as_mome,
    as_spconv1,
    fill_at_random,
    released_shapes,
    save,
)
from spconv.pytorch import SparseModule
from torch import nn

import projects.cmt_aqr  # noqa: F401
from projects.cmt_aqr.conversion import (
    ConversionError,
    Layout,
    convert,
    read_source,
    write_checkpoint,
)
from projects.cmt_aqr.conversion.convert import has_spconv1_layout
from projects.cmt_aqr.freezing.audit import Kind
from projects.cmt_aqr.freezing.verify import verify

CMT = 'cmt/cmt_tiny_synthetic_finetune'
ROUTED = 'cmt_aqr/cmt_aqr_tiny_synthetic'
GENERATOR = 'pts_bbox_head.router.aqr_weight_generator.'
WITHOUT_CAMERA = dict(
    data_preprocessor=dict(mean=None, std=None),
    img_backbone=None,
    img_neck=None,
    pts_bbox_head=dict(modalities=('lidar',)),
)
WITHOUT_LIDAR = dict(
    data_preprocessor=dict(voxel_layer=None),
    pts_voxel_encoder=None,
    pts_middle_encoder=None,
    pts_backbone=None,
    pts_neck=None,
    pts_bbox_head=dict(
        modalities=('camera',),
        in_channels=None,
        point_cloud_range=[-25.6, -25.6, -3.0, 25.6, 25.6, 3.0],
    ),
)
VOVNET = dict(
    img_backbone=dict(
        _delete_=True,
        type='VoVNet',
        spec_name='V-19-slim-eSE',
        width=0.25,
        out_features=('stage3', 'stage4'),
        num_stages=3,
    ),
    img_neck=dict(in_channels=[64, 96]),
)
MODELS_OF_CMT = {
    'r50': {},
    'vov': VOVNET,
    'lidar': {**WITHOUT_CAMERA, 'pts_bbox_head': dict(modalities=('lidar',), final_kernel=3)},
    'camera': WITHOUT_LIDAR,
}


@pytest.fixture(scope='module')
def read(repo_root):
    return lambda name: Config.fromfile(repo_root / f'configs/{name}.py')


@pytest.fixture(scope='module')
def build(read):
    """Build a tiny CMT with changes to its config; with a router from another config."""

    def build(changes: dict | None = None, *, config: str = 'cmt/cmt_tiny_synthetic') -> nn.Module:
        cfg = read(config)
        cfg.merge_from_dict({'model': copy.deepcopy(changes or {})})
        with DefaultScope.overwrite_default_scope('mmdet3d'):
            return MODELS.build(cfg.model)

    return build


@pytest.fixture(scope='module')
def published(build) -> nn.Module:
    """A trained CMT of LiDAR and cameras, as it were."""
    return fill_at_random(build())


@pytest.fixture(scope='module')
def routed(build) -> nn.Module:
    return build(config=ROUTED)


@pytest.mark.parametrize('spconv1', [False, True])
@pytest.mark.parametrize('name', MODELS_OF_CMT)
def test_outputs_are_equal(build, name, spconv1):
    original = fill_at_random(build(MODELS_OF_CMT[name]))
    state = dict(original.state_dict())
    model = build(MODELS_OF_CMT[name])
    conversion = convert(as_spconv1(state) if spconv1 else state, model)
    assert conversion.layout is Layout.CMT
    assert not conversion.missing
    assert not conversion.left_out
    kernels = [n for n, v in state.items() if n.startswith(SPARSE_PART) and v.dim() == 5]
    assert bool(kernels) is (name != 'camera')
    assert list(conversion.reshaped) == (kernels if spconv1 else [])
    model = build(MODELS_OF_CMT[name])
    model.load_state_dict(conversion.state, strict=True)
    expected = answer(original)
    assert all(value.isfinite().all() for value in expected)
    torch.testing.assert_close(answer(model), expected, rtol=0, atol=0)


def test_halves_and_wrapped_names(published, build, tmp_path):
    state = published.state_dict()
    halves = {n: v.half() if v.is_floating_point() else v for n, v in state.items()}
    source = read_source(save(tmp_path / 'file.pth', as_spconv1(halves), form='module'))
    conversion = convert(source.state, build())
    count = sum(value.is_floating_point() for value in state.values())
    assert conversion.casts == {('float16', 'float32'): count}
    assert {v.dtype for v in conversion.state.values()} == {torch.float32, torch.long}
    torch.testing.assert_close(dict(conversion.state), dict(state), rtol=0, atol=0)
    assert list(conversion.state) == list(state)
    assert conversion.state._metadata == state._metadata


def test_what_is_written_holds_no_more_than_its_own_memory(published, build):
    wide = {n: torch.stack([v, v])[0] for n, v in published.state_dict().items()}
    for name, value in convert(as_spconv1(wide), build()).state.items():
        assert value.is_contiguous(), name
        assert value.untyped_storage().nbytes() == value.nbytes, name


def test_a_router_is_left_as_it_starts(published, routed):
    start = {n: v.clone() for n, v in routed.state_dict().items()}
    conversion = convert(published.state_dict(), routed)
    router = {n for n in start if n.startswith('pts_bbox_head.router.')}
    assert set(conversion.missing) == router
    assert set(conversion.state) == set(start) - router
    for name in router:
        assert torch.equal(routed.state_dict()[name], start[name])
    torch.testing.assert_close(answer(routed), answer(published), rtol=1e-4, atol=1e-4)


def test_mome(published, routed):
    file = as_mome(published.state_dict())
    conversion = convert(as_spconv1(file), routed)
    assert conversion.layout is Layout.MOME
    state = conversion.state
    for name in ('attention.in_proj_weight', 'attention.out_proj.bias'):
        assert torch.equal(
            state[GENERATOR + name],
            file[f'{ROUTER}attentions.0.attn.{name.removeprefix("attention.")}'],
        )
    assert torch.equal(state[f'{GENERATOR}norms.1.bias'], file[f'{ROUTER}norms.1.bias'])
    assert set(conversion.missing) == {
        f'{GENERATOR}to_weight.{m}.{n}' for m in ('lidar', 'camera') for n in ('weight', 'bias')
    }
    unchanged = [n for n in published.state_dict() if not n.endswith('in_proj_bias')]
    for name in unchanged:
        assert torch.equal(state[name], published.state_dict()[name]), name


def test_type_embeddings_of_mome_shift_the_queries(published, build):
    file = as_mome(published.state_dict())
    model = build()
    convert(file, model)
    shift = file[f'{TRANSFORMER}bev_type_embed'] + file[f'{TRANSFORMER}rv_type_embed']
    original = copy.deepcopy(published)
    embed = original.pts_bbox_head.embed_queries
    original.pts_bbox_head.embed_queries = lambda *args: embed(*args) + shift
    torch.testing.assert_close(answer(model), answer(original), rtol=1e-3, atol=1e-3)


def test_heads_of_momes_router(published, build):
    changes = dict(pts_bbox_head=dict(aqr=dict(weight_generator=dict(num_heads=8))))
    model = build(changes, config=ROUTED)
    with pytest.raises(
        ConversionError, match=r"has 4 heads, the config's has 8: set aqr\.weight_g"
    ):
        convert(as_mome(published.state_dict()), model)


@pytest.mark.parametrize('changes', [{}, VOVNET], ids=['ResNet', 'VoVNet'])
@pytest.mark.parametrize('counters', [True, False])
def test_pretraining(build, changes, counters):
    backbone = fill_at_random(build(changes)).img_backbone
    file = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    if not counters:  # as detectron2's frozen norms have it
        file = {n: v for n, v in file.items() if not n.endswith('num_batches_tracked')}
    model = build(changes)
    others = {n: v.clone() for n, v in model.state_dict().items() if 'img_backbone' not in n}
    conversion = convert({**file, 'roi_head.bbox_head.fc.weight': torch.ones(2)}, model)
    assert set(conversion.state) == {f'img_backbone.{n}' for n in backbone.state_dict()}
    assert set(conversion.left_out) == {'roi_head.bbox_head.fc.weight'}
    assert set(conversion.missing) == set(others)
    norms = sum('running_mean' in name for name in file)
    assert len(conversion.counters) == (0 if counters else norms)
    for name, value in backbone.state_dict().items():
        zeroed = not counters and name.endswith('num_batches_tracked')
        assert torch.equal(model.img_backbone.state_dict()[name], value * (not zeroed))
    for name, value in others.items():
        assert torch.equal(model.state_dict()[name], value)


BROKEN = 'pts_bbox_head.task_heads.0.center.0.weight'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (  # both faults are named
            lambda state: state.update(surprise=state.pop(BROKEN)),
            f'keys of the file that have no place in the model (1):\n  surprise (96, 64, 1)\n'
            f'tensors of the model that the file lacks (1):\n  {BROKEN} (96, 64, 1)',
        ),
        (  # as the released model of LiDAR alone has it, and this config has not
            lambda state: state.update({BROKEN: torch.ones(96, 64, 3)}),
            f'tensors of another shape (1):\n  {BROKEN} (96, 64, 3), in the model (96, 64, 1)',
        ),
        (
            lambda state: state.update({BROKEN: torch.full((96, 64, 1), torch.nan)}),
            f'tensors with values that are not finite (1):\n  {BROKEN}',
        ),
    ],
)
def test_what_is_not_explained_is_an_error(published, build, change, message):
    state = dict(published.state_dict())
    change(state)
    model = build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConversionError) as error:
        convert(state, model)
    assert str(error.value) == f'the file does not fit the model of the config:\n{message}'
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_text_lists_every_key(published, routed):
    file = as_spconv1(as_mome(published.state_dict()))
    conversion = convert(file, routed)
    lines = str(conversion).splitlines()
    assert lines[0] == 'layout of MoME'
    listed = {line.split()[0] for line in lines if line.startswith('  ')}
    assert listed == {*conversion.reshaped, *conversion.left_out, *conversion.missing}
    first = 'pts_middle_encoder.conv_input.0.weight'
    assert f'  {first} (3, 3, 3, 5, 8) -> (8, 3, 3, 3, 5)' in lines
    assert "sparse kernels brought from spconv 1's layout to spconv 2's (13):" in lines
    assert 'no place here: the router has no further norm after its layer (2):' in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ('released', 'config'),
    [
        ('r50', 'cmt_voxel0100_r50_800x320_cbgs'),
        ('vov', 'cmt_voxel0075_vov_1600x640_cbgs'),
        ('lidar', 'cmt_lidar_voxel0075_cbgs'),
        ('camera', 'cmt_camera_vov_1600x640_cbgs'),
    ],
)
def test_full_size(build, reference, tmp_path, released, config):
    shapes = released_shapes(reference, released)
    state = {
        name: torch.zeros(shape, dtype=torch.long)
        if name.endswith('num_batches_tracked')
        else torch.rand(shape).half()
        for name, shape in shapes.items()
    }
    path = save(tmp_path / 'file.pth', as_spconv1(state), form='module')
    conversion = convert(read_source(path).state, build(config=f'cmt/{config}'))
    assert {name: list(v.shape) for name, v in conversion.state.items()} == shapes
    kernels = [name for name, shape in shapes.items() if len(shape) == 5]
    assert list(conversion.reshaped) == kernels
    assert len(kernels) == (0 if released == 'camera' else 21)
    for name, value in conversion.state.items():
        assert torch.equal(value, state[name].to(value.dtype)), name


# Layouts of sparse kernels.

NEW, OLD = torch.empty(16, 3, 3, 3, 5), torch.empty(3, 3, 3, 5, 16)
BOTH = torch.empty(3, 3, 3, 3, 3)
SHAPES = {'a': NEW.shape, 'b': NEW.shape, 'both': BOTH.shape}


@pytest.mark.parametrize(
    ('kernels', 'expected'),
    [
        ({'a': OLD, 'b': OLD}, True),
        ({'a': NEW, 'b': NEW}, False),
        ({'a': OLD, 'both': BOTH}, True),
        ({'a': NEW, 'both': BOTH}, False),
        ({'a': torch.empty(1, 2, 3, 4, 5)}, False),
        ({}, False),
    ],
)
def test_layout_of_kernels(kernels, expected):
    assert has_spconv1_layout(kernels, SHAPES) is expected


@pytest.mark.parametrize(
    ('kernels', 'message'),
    [
        ({'a': OLD, 'b': NEW}, 'both layouts: a that of spconv 1, b that of'),
        ({'both': BOTH}, 'cannot be told: all sizes of each are equal'),
    ],
)
def test_layouts_that_cannot_be_told_are_refused(kernels, message):
    with pytest.raises(ConversionError, match=message):
        has_spconv1_layout(kernels, SHAPES)


# The written file.


@pytest.fixture
def write(build, tmp_path):
    """Convert a state dict, by way of files, for a config."""

    def write(state: dict, config: str = CMT):
        source = read_source(save(tmp_path / 'published.pth', state))
        path = tmp_path / 'converted.pth'
        conversion = convert(source.state, build(config=config))
        write_checkpoint(path, conversion, source, config=config)
        return path

    return write


@pytest.mark.parametrize('layout', [dict, as_spconv1], ids=['spconv 2', 'spconv 1'])
@pytest.mark.parametrize('loader', ['patched', 'of mmdet3d'])
def test_a_written_file_gives_equal_outputs(published, build, write, monkeypatch, layout, loader):
    path = write(layout(published.state_dict()))
    if loader == 'of mmdet3d':  # which permutes whatever is not marked as of version 2
        patched = SparseModule._load_from_state_dict
        monkeypatch.setattr(SparseModule, '_load_from_state_dict', patched.__wrapped__)
    model = build()
    load_checkpoint(model, str(path), strict=True)
    torch.testing.assert_close(answer(model), answer(published), rtol=0, atol=0)


def test_the_file_says_how_it_came_about(published, write, tmp_path):
    file = torch.load(write(as_mome(published.state_dict()), ROUTED), weights_only=True)
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
def test_the_freeze_audit_passes(read, published, write, config):
    cfg = read(config)
    cfg.load_from = str(write(as_spconv1(published.state_dict()), config))
    found = verify(cfg, epoch_length=20)
    assert found.describe()['state'] == 'passed'
    assert len(found.frozen.loadable) == 210
    assert {found.filled[name] for name in found.frozen.loadable} == {cfg.load_from}


def test_the_freeze_audit_still_sees_what_pretraining_does_not_fill(read, published, write):
    cfg = read(CMT)
    backbone = {f'backbone.{n}': v for n, v in published.img_backbone.state_dict().items()}
    cfg.load_from = str(write(backbone))
    (violation,) = verify(cfg, epoch_length=20).violations
    assert violation.kind is Kind.UNFILLED
    parts = {name.split('.')[0] for name in violation.names}
    assert parts == {'pts_middle_encoder', 'pts_backbone', 'pts_neck'}
