"""Every name in a published file has a place in the model, or a reason why it has none."""

import pytest
import torch
from published_files import OF_CAMERA, OF_LIDAR, ROUTER, TRANSFORMER, as_mome, released_shapes

from projects.cmt_aqr.conversion import ConversionError, Layout
from projects.cmt_aqr.conversion.layouts import find_places, may_be_missing, recognise

GENERATOR = 'pts_bbox_head.router.aqr_weight_generator'
BIAS_GENERATOR = 'pts_bbox_head.router.attention_bias_generator'
LAYER = [
    *(f'{GENERATOR}.attention.{n}' for n in ('in_proj_weight', 'in_proj_bias')),
    *(f'{GENERATOR}.attention.out_proj.{n}' for n in ('weight', 'bias')),
    *(f'{GENERATOR}.ffn.layers.{i}.{n}' for i in ('0.0', '1') for n in ('weight', 'bias')),
    *(f'{GENERATOR}.norms.{i}.{n}' for i in (0, 1) for n in ('weight', 'bias')),
]
NEW_PARTS = [
    *(f'{GENERATOR}.to_weight.{m}.{n}' for m in ('lidar', 'camera') for n in ('weight', 'bias')),
    f'{BIAS_GENERATOR}.bias_scale',
]


@pytest.fixture(params=['r50', 'vov'])
def names(request, reference) -> list[str]:
    return list(released_shapes(reference, request.param))


@pytest.fixture
def mome_names(reference) -> list[str]:
    shapes = released_shapes(reference, 'vov')
    return list(as_mome({name: torch.empty(shape) for name, shape in shapes.items()}))


def test_released_names_are_those_of_the_model(names):
    assert recognise(names) is Layout.CMT
    places = find_places(Layout.CMT, names, [*names, *LAYER, *NEW_PARTS])
    assert places.targets == dict(zip(names, names, strict=True))
    assert places.left_out == {}


@pytest.mark.parametrize(('branch', 'parts'), [('camera', OF_CAMERA), ('LiDAR', OF_LIDAR)])
def test_a_branch_that_the_config_has_not(names, branch, parts):
    model = [name for name in names if not name.startswith(parts)]
    places = find_places(Layout.CMT, names, model)
    assert list(places.targets) == model
    assert set(places.left_out) == set(names) - set(model)
    assert set(places.left_out.values()) == {f'the config has no {branch} branch'}


def test_a_branch_that_the_file_has_not_must_not_be_missing(names):
    file = [name for name in names if not name.startswith(OF_CAMERA)]
    assert may_be_missing(Layout.CMT, 'img_neck.fpn_convs.0.conv.bias', file) is None


def test_a_part_of_a_branch_is_no_reason(names):
    model = [name for name in names if name != 'img_neck.fpn_convs.0.conv.bias']
    places = find_places(Layout.CMT, names, model)
    assert set(names) - set(places.targets) == {'img_neck.fpn_convs.0.conv.bias'}
    assert places.left_out == {}


def test_mome_gives_all_of_cmt_and_the_layer_of_its_router(mome_names):
    assert recognise(mome_names) is Layout.MOME
    model = [n for n in mome_names if not n.startswith(f'{TRANSFORMER}encoder.')]
    cmt = [n for n in model if not n.startswith(_NO_PLACE)]
    places = find_places(Layout.MOME, mome_names, [*cmt, *LAYER, *NEW_PARTS])
    assert set(places.targets.values()) == {*cmt, *LAYER}
    assert places.targets[f'{ROUTER}attentions.0.attn.out_proj.bias'] == LAYER[3]
    assert places.targets[f'{ROUTER}ffns.0.layers.0.0.weight'] == LAYER[4]
    assert places.targets[f'{ROUTER}norms.1.bias'] == LAYER[-1]
    assert set(places.left_out) == {n for n in mome_names if n.startswith(_NO_PLACE)}
    # Of three convolutions and norms of cam_embed, post_norm, selected_cls, two type embeddings.
    assert len(places.left_out) == 3 * (2 + 5) + 2 + 2 + 2


_NO_PLACE = tuple(
    TRANSFORMER + name
    for name in ('encoder.post_norm', 'selected_cls', 'cam_embed', 'bev_type_embed', 'rv_type')
)


def test_mome_for_a_config_without_a_router(mome_names):
    cmt = [n for n in mome_names if not n.startswith((f'{TRANSFORMER}encoder.', *_NO_PLACE))]
    places = find_places(Layout.MOME, mome_names, cmt)
    of_layer = {n: r for n, r in places.left_out.items() if n.startswith(ROUTER)}
    assert len(of_layer) == len(LAYER)
    assert set(of_layer.values()) == {'the config has no router'}


@pytest.mark.parametrize('name', NEW_PARTS)
def test_what_only_this_project_has_may_be_missing(name):
    reason = 'a part of the router that others do not have'
    assert may_be_missing(Layout.CMT, name, ['pts_bbox_head.reference_points.weight']) == reason
    assert may_be_missing(Layout.MOME, name, LAYER) == reason


@pytest.mark.parametrize('name', LAYER)
def test_the_layer_of_a_router_may_be_missing_in_cmt_alone(name):
    assert may_be_missing(Layout.CMT, name, []) is not None
    assert may_be_missing(Layout.MOME, name, []) is None


def test_half_a_router_is_no_reason():
    assert may_be_missing(Layout.CMT, NEW_PARTS[0], NEW_PARTS[1:]) is None


RESNET = ['conv1.weight', 'bn1.running_mean', 'layer1.0.conv1.weight']
VOVNET = ['stem.stem_1/conv.weight', 'stage2.OSA2_1.concat.OSA2_1_concat/norm.weight']


@pytest.mark.parametrize('backbone', [RESNET, VOVNET])
@pytest.mark.parametrize(
    ('prefix', 'others'),
    [
        ('', {'fc.weight': 'the classifier of the pre-training'}),
        ('img_backbone.', {'img_neck.lateral_convs.0.conv.weight': 'not of the image backbone'}),
        ('backbone.', {'rpn_head.rpn_conv.weight': 'not of the image backbone'}),
        ('backbone.bottom_up.', {'backbone.fpn_output4.weight': 'not of the image backbone'}),
        ('bottom_up.', {}),
    ],
)
def test_pretraining_fills_the_image_backbone_alone(backbone, prefix, others):
    file = [*(prefix + name for name in backbone), *others]
    model = [*(f'img_backbone.{name}' for name in backbone), 'img_neck.a', 'pts_bbox_head.b']
    assert recognise(file) is Layout.IMAGE_BACKBONE
    places = find_places(Layout.IMAGE_BACKBONE, file, model)
    assert places.targets == {prefix + name: f'img_backbone.{name}' for name in backbone}
    assert places.left_out == others
    for name in ('img_neck.a', 'pts_bbox_head.b'):
        assert may_be_missing(Layout.IMAGE_BACKBONE, name, []) is not None
    assert may_be_missing(Layout.IMAGE_BACKBONE, f'img_backbone.{backbone[0]}', []) is None


def test_what_lies_within_the_backbone_is_not_left_out():
    file = ['backbone.conv1.weight', 'backbone.layer5.weight']
    places = find_places(Layout.IMAGE_BACKBONE, file, ['img_backbone.conv1.weight'])
    assert places.left_out == {}


def test_another_backbone():
    with pytest.raises(ConversionError) as error:
        find_places(Layout.IMAGE_BACKBONE, VOVNET, ['img_backbone.conv1.weight'])
    assert "none of 'img_backbone.conv1.weight', 'backbone.bottom_up.conv1" in str(error.value)
    assert str(error.value).endswith('its names start with stage2, stem')


def test_no_image_backbone_to_fill():
    with pytest.raises(ConversionError, match='the config has no img_backbone'):
        find_places(Layout.IMAGE_BACKBONE, RESNET, ['pts_bbox_head.b'])
