"""The head against the numbers of the public CMT, and on input that the public code fails on."""

import importlib.util

import numpy as np
import pytest
import torch
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet3d.structures import Det3DDataSample, LiDARInstance3DBoxes
from mmengine.structures import InstanceData

from projects.cmt_aqr.aqr.bias_generator import SCOPES
from projects.cmt_aqr.aqr.hard_choice import MASKED
from projects.cmt_aqr.cameras import batch_cameras
from projects.cmt_aqr.geometry import VoxelGrid, project, unit_to_metres
from projects.cmt_aqr.head import CmtHead

RANGE = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
CLASSES = [
    'car', 'truck', 'construction_vehicle', 'bus', 'trailer', 'barrier', 'motorcycle', 'bicycle',
    'pedestrian', 'traffic_cone',
]  # fmt: skip
CODE_WEIGHTS = [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2]


def head_config(**changes):
    """The small head of the reference."""
    config = {
        'point_cloud_range': RANGE,
        'tasks': [CLASSES],
        'in_channels': 48,
        'hidden_dim': 32,
        'num_query': 24,
        'depth_num': 64,
        'transformer': {'num_layers': 2, 'num_heads': 4, 'feedforward_channels': 64},
        'box_coder': {
            'type': 'BoxCoder',
            'layout': 'released',
            'post_center_range': [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],
            'max_num': 20,
        },
        'assigner': {
            'type': 'mmdet.HungarianAssigner',
            'match_costs': [
                {'type': 'mmdet.FocalLossCost', 'weight': 2.0},
                {'type': 'mmdet3d.BBox3DL1Cost', 'weight': 0.25, 'code_weights': CODE_WEIGHTS[:8]},
            ],
        },
        'loss_cls': {'type': 'mmdet.FocalLoss', 'loss_weight': 2.0},
        'loss_bbox': {'type': 'mmdet.L1Loss', 'loss_weight': 0.25},
        'code_weights': CODE_WEIGHTS,
        'denoising': {},
    }
    return {**config, **changes}


def make_head(**changes):
    torch.manual_seed(0)
    return CmtHead(**head_config(**changes))


@pytest.fixture
def reference_head(reference):
    spec = importlib.util.spec_from_file_location('fill', reference / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    head = make_head()
    fill.fill_state_dict(head, 7)
    return head.eval()


@pytest.fixture
def numbers(reference):
    return dict(np.load(reference / 'cmt_head_small.npz'))


def inputs_of(numbers):
    bev = torch.from_numpy(numbers['x'])
    images = torch.from_numpy(numbers['x_img']).unflatten(0, (len(bev), -1))
    metas = [
        {
            'lidar2img': matrices,
            'pad_shape': tuple(numbers['pad_shape']),
            'box_type_3d': LiDARInstance3DBoxes,
        }
        for matrices in numbers['lidar2img']
    ]
    return bev, images, metas


def samples_of(metas, boxes, labels):
    samples = []
    for meta, box, label in zip(metas, boxes, labels, strict=True):
        sample = Det3DDataSample(metainfo=meta)
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=LiDARInstance3DBoxes(box, box_dim=9), labels_3d=label
        )
        samples.append(sample)
    return samples


def reference_samples(numbers, metas):
    boxes = [torch.from_numpy(numbers[f'gt_box{i}']) for i in range(len(metas))]
    labels = [torch.from_numpy(numbers[f'gt_label{i}']) for i in range(len(metas))]
    return samples_of(metas, boxes, labels)


def random_batch(boxes=(3, 2), views=2, classes=10):
    """Features and samples of a batch, with a number of boxes in each sample."""
    bev = torch.randn(len(boxes), 48, 8, 8)
    images = torch.randn(len(boxes), views, 32, 4, 6)
    looks_along_x = np.array([[48.0, -50, 0, 0], [32, 0, -50, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    metas = [
        {
            'lidar2img': np.stack([looks_along_x] * views),
            'pad_shape': (64, 96),
            'box_type_3d': LiDARInstance3DBoxes,
        }
        for _ in boxes
    ]
    low = torch.tensor([-40.0, -40, -1, 1, 1, 1, -3, 0, 0])
    high = torch.tensor([40.0, 40, 1, 4, 4, 2, 3, 1, 1])
    truth = [low + torch.rand(count, 9) * (high - low) for count in boxes]
    labels = [torch.randint(0, classes, (count,)) for count in boxes]
    return bev, images, samples_of(metas, truth, labels)


def test_outputs_equal_the_reference(reference_head, numbers):
    (outputs,) = reference_head(*inputs_of(numbers)).tasks
    for name, value in outputs.items():
        expected = torch.from_numpy(numbers[f'task0.{name}'])
        torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4, msg=name)


def test_decoded_boxes_equal_the_reference(reference_head, numbers):
    bev, images, metas = inputs_of(numbers)
    results = reference_head.predict(bev, images, reference_samples(numbers, metas))
    for i, result in enumerate(results):
        torch.testing.assert_close(
            result.bboxes_3d.tensor, torch.from_numpy(numbers[f'box{i}']), atol=1e-3, rtol=1e-4
        )
        torch.testing.assert_close(result.scores_3d, torch.from_numpy(numbers[f'score{i}']))
        assert result.labels_3d.tolist() == numbers[f'label{i}'].tolist()


def test_losses_and_gradients_equal_the_reference(reference_head, numbers, monkeypatch):
    def noise(like):
        return (torch.arange(like.numel()) * 0.37 % 1).reshape(like.shape).to(like)

    monkeypatch.setattr(torch, 'rand_like', noise)
    bev, images, metas = inputs_of(numbers)
    losses = reference_head.loss(bev, images, reference_samples(numbers, metas))
    expected = {k[len('loss.') :]: v for k, v in numbers.items() if k.startswith('loss.')}
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-3), name
    sum(losses.values()).backward()
    parameters = dict(reference_head.named_parameters())
    gradients = [k for k in numbers if k.startswith('grad.')]
    assert len(gradients) == 4
    for key in gradients:
        grad, target = parameters[key[len('grad.') :]].grad, torch.from_numpy(numbers[key])
        assert (grad - target).norm() <= 1e-3 * target.norm(), key


SIX_TASKS = [CLASSES[:1], CLASSES[1:3], CLASSES[3:5], CLASSES[5:6], CLASSES[6:8], CLASSES[8:]]


def test_six_tasks_train_and_predict():
    head = make_head(tasks=SIX_TASKS)
    bev, images, samples = random_batch()
    losses = head.loss(bev, images, samples)
    assert len(losses) == 8
    sum(losses.values()).backward()
    assert {n for n, p in head.named_parameters() if p.grad is None} == set()
    results = head.eval().predict(bev, images, samples)
    assert {len(result.labels_3d) for result in results} == {20}
    assert max(result.labels_3d.max() for result in results) < len(CLASSES)


@pytest.mark.parametrize(
    ('modalities', 'absent'),
    [(['lidar'], {'rv_embedding'}), (['camera'], {'shared_conv'})],
)
def test_one_sensor_alone_has_the_other_parameters(modalities, absent):
    both = {name.split('.')[0] for name, _ in make_head().named_parameters()}
    alone = {n.split('.')[0] for n, _ in make_head(modalities=modalities).named_parameters()}
    assert both - alone == absent
    assert alone <= both


@pytest.mark.parametrize('missing', ['lidar', 'camera'])
def test_a_head_for_both_takes_either(missing):
    head = make_head().eval()
    bev, images, samples = random_batch()
    bev, images = (None, images) if missing == 'lidar' else (bev, None)
    alone = make_head(modalities=['camera' if missing == 'lidar' else 'lidar']).eval()
    alone.load_state_dict(head.state_dict(), strict=False)
    for a, b in zip(
        head.predict(bev, images, samples), alone.predict(bev, images, samples), strict=True
    ):
        assert torch.equal(a.bboxes_3d.tensor, b.bboxes_3d.tensor)
    assert all(torch.isfinite(v) for v in head.loss(bev, images, samples).values())


def test_no_input_and_wrong_input_are_refused():
    bev, images, samples = random_batch()
    metas = [sample.metainfo for sample in samples]
    with pytest.raises(ValueError, match=r'given \[\]'):
        make_head()(None, None, metas)
    with pytest.raises(ValueError, match=r"built for \['lidar'\], but was given .*'camera'"):
        make_head(modalities=['lidar'])(bev, images, metas)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'modalities': ['radar']}, 'radar'),
        ({'modalities': []}, 'one or both'),
        ({'in_channels': None}, 'in_channels'),
        ({'final_kernel': 2}, r'final_kernel is 2; it must be one of \(1, 3\)'),
        ({'point_cloud_range': [0, 0, 0, 1, 1, 0]}, 'minimum below its maximum'),
    ],
)
def test_wrong_options_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_head(**change)


def test_a_batch_without_boxes_has_every_loss():
    head = make_head()
    with_boxes = head.loss(*random_batch((3, 2)))
    without = head.loss(*random_batch((0, 0)))
    assert without.keys() == with_boxes.keys()
    assert all(torch.isfinite(value) for value in without.values())
    sum(without.values()).backward()
    assert {n for n, p in head.named_parameters() if p.grad is None} == set()


def test_one_sample_without_boxes_changes_nothing_for_the_other():
    head = make_head(denoising=None)
    head.eval()
    bev, images, samples = random_batch((3, 0))
    both = head.losses(
        head(bev, images, [s.metainfo for s in samples]).tasks,
        head.ground_truth(samples),
        None,
    )
    one = head.loss(bev[:1], images[:1], samples[:1])
    torch.testing.assert_close(both['loss_bbox'], one['loss_bbox'])


def test_a_sample_with_fewer_cameras_equals_itself_alone():
    head = make_head().eval()
    bev, images, samples = random_batch((2, 2))
    first = samples[0].metainfo['lidar2img'][:1]
    samples[0].set_metainfo({'lidar2img': first})
    batched = head.predict(bev, images, samples)[0]
    alone = head.predict(bev[:1], images[:1, :1], samples[:1])[0]
    torch.testing.assert_close(
        batched.bboxes_3d.tensor, alone.bboxes_3d.tensor, atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(batched.scores_3d, alone.scores_3d)


def test_ignored_boxes_are_left_out():
    head = make_head()
    _, _, samples = random_batch((3, 2))
    samples[0].gt_instances_3d.labels_3d[0] = -1  # to be ignored
    truth = head.ground_truth(samples)
    assert len(truth.boxes) == len(truth.labels) == 4
    assert truth.counts == (2, 2)


def test_an_ignored_box_changes_no_loss():
    head = make_head()
    bev, images, samples = random_batch((3, 2))
    torch.manual_seed(1)
    without = head.loss(bev, images, samples)
    for sample in samples:
        truth = sample.gt_instances_3d
        ignored = truth[:1]
        ignored.labels_3d = torch.tensor([-1])
        boxes = truth.bboxes_3d.cat([ignored.bboxes_3d, truth.bboxes_3d])
        labels = torch.cat([ignored.labels_3d, truth.labels_3d])
        sample.gt_instances_3d = InstanceData(bboxes_3d=boxes, labels_3d=labels)
    torch.manual_seed(1)
    assert head.loss(bev, images, samples) == without


def test_labels_beyond_the_classes_are_refused():
    head = make_head()
    bev, images, samples = random_batch((3, 2))
    samples[0].gt_instances_3d.labels_3d[0] = 10
    with pytest.raises(ValueError, match='labelled 10, but the head has 10 classes'):
        head.loss(bev, images, samples)


def test_visible_pairs_alone_are_embedded_as_all_would_be(reference_head, numbers):
    """The gathered ray embedding equals embedding every pair and masking."""
    _, images, metas = inputs_of(numbers)
    cameras = batch_cameras(metas, like=images)
    reference = reference_head.reference(len(metas), None)
    gathered = reference_head.embed_queries(reference, cameras)
    points = unit_to_metres(inverse_sigmoid(reference).sigmoid(), RANGE)
    projection = project(points, cameras.lidar2img, cameras.image_shape)
    rays = reference_head._embed_rays(projection.pixels, cameras.img2lidar)
    masked = (rays * projection.visible[..., None]).sum(dim=1)
    torch.testing.assert_close(
        gathered - reference_head.embed_queries(reference, None), masked, atol=1e-5, rtol=1e-5
    )
    assert projection.visible.any()
    assert not projection.visible.all()


def test_a_head_with_a_local_start_trains_and_predicts():
    for modalities in (['lidar', 'camera'], ['lidar'], ['camera']):
        head = make_head(modalities=modalities, local_start={'lidar': 3.0, 'camera': 4.0})
        bev, images, samples = random_batch()
        inputs = (
            bev if 'lidar' in modalities else None,
            images if 'camera' in modalities else None,
        )
        assert all(torch.isfinite(value) for value in head.loss(*inputs, samples).values())


# The maps of random_batch: 8 BEV cells of 13.5 m along each axis.
GRID = VoxelGrid(voxel_size=(1.6875, 1.6875, 8.0), shape=(1, 64, 64))


def aqr(scope='global', window='box', form='add', **weights):
    """Options of a router."""
    return {
        'windows': {'lidar': 3, 'camera': 2},
        'weight_generator': {'type': 'AQRWeightGenerator', 'feedforward_channels': 32, **weights},
        'bias_generator': {
            'type': 'AttentionBiasGenerator',
            'form': form,
            'scope': scope,
            'window': window,
        },
    }


def routed_head(**options):
    return make_head(aqr=aqr(**options), voxel_grid=GRID)


def wake(head):
    """Give the router's last layer, which starts at zero, something to say."""
    for linear in head.aqr_weight_generator.to_weight.values():
        torch.nn.init.normal_(linear.weight)


@pytest.mark.parametrize('activation', ['tanh', 'sigmoid', 'softmax'])
@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('groups', ['modality', 'camera'])
@pytest.mark.parametrize('window', ['box', 'gaussian'])
@torch.no_grad()
def test_a_new_router_leaves_every_box_as_it_was(activation, scope, groups, window):
    routed = routed_head(activation=activation, scope=scope, groups=groups, window=window).eval()
    plain = make_head().eval()
    missing, unexpected = routed.load_state_dict(plain.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split('.')[0] for name in missing} == {
        'aqr_weight_generator',
        'attention_bias_generator',
    }
    seen = {}
    routed.transformer.register_forward_pre_hook(
        lambda _, args, options: seen.update(options), with_kwargs=True
    )
    batch = random_batch()
    boxes = routed.predict(*batch)
    # The bias is zero bit for bit, but another kernel may round otherwise.
    for ours, theirs in zip(boxes, plain.predict(*batch), strict=True):
        torch.testing.assert_close(
            ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor, atol=1e-5, rtol=1e-5
        )
        assert torch.equal(ours.labels_3d, theirs.labels_3d)
    assert not seen['routing'].dense().any()


@pytest.mark.parametrize('scope', SCOPES)
@pytest.mark.parametrize('groups', ['modality', 'camera'])
def test_a_router_trains_with_denoising_queries(scope, groups):
    head = routed_head(scope=scope, groups=groups)
    wake(head)
    losses = head.loss(*random_batch())
    sum(losses.values()).backward()
    unused = {name for name, p in head.named_parameters() if p.grad is None}
    assert unused == set()
    assert head.attention_bias_generator.bias_scale.grad.abs().sum() > 0


@pytest.mark.parametrize('form', ['gate', 'mix'])
@pytest.mark.parametrize('groups', ['modality', 'camera'])
def test_a_new_gate_or_mix_leaves_every_box_and_trains(form, groups):
    routed, plain = routed_head(form=form, groups=groups), make_head().eval()
    routed.load_state_dict(plain.state_dict(), strict=False)
    batch = random_batch()
    with torch.no_grad():
        boxes = zip(routed.eval().predict(*batch), plain.predict(*batch), strict=True)
        for ours, theirs in boxes:
            torch.testing.assert_close(
                ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor, atol=1e-5, rtol=1e-5
            )
    wake(routed)
    sum(routed.train().loss(*batch).values()).backward()
    assert {name for name, p in routed.named_parameters() if p.grad is None} == set()
    assert all(p.grad.any() for p in routed.attention_bias_generator.parameters())


def test_a_router_that_suppresses_lidar_makes_its_tokens_unseen():
    """With a bias beyond its usual limit the boxes are those without any LiDAR token."""
    head = routed_head().eval()
    torch.nn.init.constant_(head.aqr_weight_generator.to_weight['lidar'].bias, -50.0)
    head.attention_bias_generator.limit = 1e4
    torch.nn.init.constant_(head.attention_bias_generator.bias_scale, 1e4)
    bev, images, samples = random_batch()
    for ours, theirs in zip(
        head.predict(bev, images, samples), head.predict(None, images, samples), strict=True
    ):
        torch.testing.assert_close(
            ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize('missing', ['lidar', 'camera'])
@pytest.mark.parametrize('groups', ['modality', 'camera'])
@pytest.mark.parametrize('form', [{'scope': 'both'}, {'form': 'gate'}, {'form': 'mix'}])
def test_a_router_takes_a_batch_without_a_sensor(missing, groups, form):
    head = routed_head(**form, groups=groups, activation='softmax')
    wake(head)
    bev, images, samples = random_batch()
    inputs = (None, images) if missing == 'lidar' else (bev, None)
    losses = head.loss(*inputs, samples)
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()


@pytest.mark.parametrize('form', [{'scope': 'both'}, {'form': 'gate'}, {'form': 'mix'}])
def test_a_routed_sample_with_fewer_cameras_equals_itself_alone(form):
    head = routed_head(**form, groups='camera').eval()
    wake(head)
    bev, images, samples = random_batch((2, 2))
    samples[0].set_metainfo({'lidar2img': samples[0].metainfo['lidar2img'][:1]})
    batched = head.predict(bev, images, samples)[0]
    alone = head.predict(bev[:1], images[:1, :1], samples[:1])[0]
    torch.testing.assert_close(
        batched.bboxes_3d.tensor, alone.bboxes_3d.tensor, atol=1e-4, rtol=1e-4
    )


def spy(module):
    """The keyword arguments of the latest call of a module."""
    seen = {}
    module.register_forward_pre_hook(
        lambda _, args, options: seen.update(options), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize('form', ['add', 'gate', 'mix'])
@pytest.mark.parametrize('rule', ['same', 'neutral'])
def test_denoising_queries_are_routed_by_their_rule(form, rule):
    head = make_head(aqr={**aqr(form=form), 'denoising': rule}, voxel_grid=GRID)
    wake(head)
    seen = spy(head.transformer)
    sum(head.loss(*random_batch()).values()).backward()
    routing = seen['routing']
    weights = {'add': 'everywhere', 'gate': 'gains', 'mix': 'bias'}[form]
    asked = getattr(routing, weights) - (1 if form == 'gate' else 0)
    slots = asked.shape[1] - head.num_query
    assert slots == 24  # eight copies of at most three boxes
    assert asked[:, slots:].any()
    assert bool(asked[:, :slots].any()) == (rule == 'same')
    assert all(p.grad is not None for p in head.aqr_weight_generator.parameters())


@pytest.mark.parametrize('form', ['add', 'mix'])
def test_every_layer_attends_by_its_own_scales(form):
    options = aqr(form=form)
    options['bias_generator']['scales'] = 'per_layer'
    head = make_head(aqr=options, voxel_grid=GRID)
    wake(head)
    scale = head.attention_bias_generator.bias_scale
    with torch.no_grad():
        scale[1] = 5.0
    attentions = [spy(layer.attentions[1]) for layer in head.transformer.layers]
    sum(head.loss(*random_batch()).values()).backward()
    name = 'everywhere' if form == 'add' else 'bias'
    first, second = (getattr(seen['routing'], name) for seen in attentions)
    assert first.any()
    torch.testing.assert_close(second, 2 * first)
    assert scale.grad.shape == (2, 1, 2)
    assert (scale.grad != 0).all()


@torch.no_grad()
def test_equal_scales_of_all_layers_are_shared_ones():
    batch = random_batch()
    boxes = []
    for scales in ('shared', 'per_layer'):
        options = aqr(scope='both')
        options['bias_generator']['scales'] = scales
        head = make_head(aqr=options, voxel_grid=GRID).eval()
        torch.manual_seed(1)
        wake(head)
        boxes.append(head.predict(*batch)[0].bboxes_3d.tensor)
    assert torch.equal(*boxes)


def test_without_denoising_queries_the_rules_agree():
    batch = random_batch()
    boxes = []
    for rule in ('same', 'neutral'):
        head = make_head(aqr={**aqr(), 'denoising': rule}, voxel_grid=GRID).eval()
        torch.manual_seed(1)
        wake(head)
        boxes.append(head.predict(*batch)[0].bboxes_3d.tensor)
    assert torch.equal(*boxes)


def scaling_head(**changes):
    options = {**aqr(), 'bias_generator': None, 'feature_scaling': {}, **changes}
    return make_head(aqr=options, voxel_grid=GRID)


@torch.no_grad()
def test_scaling_by_zero_weights_leaves_every_box_as_it_was():
    scaled, plain = scaling_head().eval(), make_head().eval()
    missing, _ = scaled.load_state_dict(plain.state_dict(), strict=False)
    assert {name.split('.')[0] for name in missing} == {'aqr_weight_generator'}
    seen = spy(scaled.transformer)
    batch = random_batch()
    for ours, theirs in zip(scaled.predict(*batch), plain.predict(*batch), strict=True):
        assert torch.equal(ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor)
    assert seen['routing'] is None


@torch.no_grad()
def test_features_are_scaled_by_the_map_where_queries_stand():
    head = scaling_head(feature_scaling={'sigma': 100.0}).eval()  # falls to nothing in no window
    torch.nn.init.constant_(head.aqr_weight_generator.to_weight['lidar'].bias, -100.0)
    head.reference_points.weight.fill_(0.5 + 1e-3)  # in the middle: cell (4, 4) of 8 x 8
    seen = spy(head.transformer)
    bev, images, samples = random_batch()
    head.predict(bev, images, samples)
    features = head.tokenize(bev, images, batch_cameras([s.metainfo for s in samples], images))
    scale = torch.ones(8, 8)
    scale[3:6, 3:6] = 0
    expected = features.features.clone()
    expected[:, :64] *= scale.flatten()[:, None]
    torch.testing.assert_close(seen['tokens'], expected, atol=1e-4, rtol=1e-4)


def test_scaling_trains_and_may_stand_beside_a_bias():
    for head in (scaling_head(), scaling_head(bias_generator=aqr()['bias_generator'])):
        wake(head)
        sum(head.loss(*random_batch()).values()).backward()
        assert {name for name, p in head.named_parameters() if p.grad is None} == set()
        assert all(p.grad.any() for p in head.aqr_weight_generator.to_weight.parameters())


@torch.no_grad()
def test_denoising_queries_leave_nothing_on_the_features_that_learned_ones_see():
    """They stand where the boxes are: their weights, or their coverage, would tell."""
    head = scaling_head().eval()
    wake(head)
    bev, images, samples = random_batch()
    metas = [sample.metainfo for sample in samples]
    denoising = head.make_denoising(head.ground_truth(samples), num_query=head.num_query)
    (alone,) = head(bev, images, metas).tasks
    (beside,) = head(bev, images, metas, denoising).tasks
    for name, value in alone.items():
        learned = beside[name][:, :, denoising.slots :]
        torch.testing.assert_close(learned, value, atol=1e-5, rtol=1e-5, msg=name)


def with_health(batch, lidar=1.0, camera=1.0):
    """The batch with the health of all samples, a number or a map."""
    for sample in batch[2]:
        views = len(sample.metainfo['lidar2img'])
        health = {
            'lidar': np.broadcast_to(lidar, (8, 8)),
            'camera': np.broadcast_to(camera, (views, 4, 6)),
        }
        sample.set_metainfo({'health': health, 'img_shape': (64, 96)})
    return batch


def reliable_head(reliability=(), **options):
    options = {**aqr(**options), 'reliability': dict(reliability)}
    return make_head(aqr=options, voxel_grid=GRID)


def hard_head(**changes):
    options = {**aqr(form='hard', activation='none'), 'reliability': {'labels': 'frame'}}
    return make_head(aqr={**options, **changes}, voxel_grid=GRID)


def test_a_reliability_loss_is_one_loss_more_and_zero_where_weights_and_health_are():
    plain = routed_head().loss(*random_batch())
    losses = reliable_head().loss(*with_health(random_batch()))
    assert losses.keys() - plain.keys() == {'loss_reliability'}
    assert losses['loss_reliability'].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize('groups', ['modality', 'camera'])
@pytest.mark.parametrize('labels', ['query', 'frame'])
def test_the_reliability_loss_of_a_new_router_is_the_squared_damage(groups, labels):
    head = reliable_head({'labels': labels}, groups=groups)
    batch = with_health(random_batch(), camera=0.5)
    loss = head.loss(*batch)['loss_reliability']
    if labels == 'frame':
        pairs = {'modality': (1, 2), 'camera': (2, 3)}[groups]  # damaged, all
        expected = 0.25 * pairs[0] / pairs[1]
    else:  # all of the 24 queries see a BEV window; the cameras see some
        _, images, samples = batch
        cameras = batch_cameras([sample.metainfo for sample in samples], images)
        seen = head._project(head.reference(2, None), cameras).visible  # (B, V, Q)
        seen = seen.any(dim=1) if groups == 'modality' else seen
        expected = 0.25 * seen.sum() / (seen.sum() + 2 * 24)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_the_reliability_loss_follows_the_map_at_the_place_of_the_query():
    """All queries in the BEV cell of column 6 and row 2, whose window spans three cells."""
    health = np.ones((8, 8))
    health[1:4, 5:8] = [[0.0, 0.5, 1.0]] * 3  # rows run along y, columns along x
    head = reliable_head()
    with torch.no_grad():
        head.reference_points.weight.copy_(torch.tensor([6.5 / 8, 2.5 / 8, 0.5]))
    bev, _, samples = with_health(random_batch(), lidar=health)
    loss = head.loss(bev, None, samples)['loss_reliability']
    assert loss.item() == pytest.approx(0.25)  # mean health 0.5, target -0.5


@pytest.mark.parametrize('labels', ['query', 'frame'])
def test_an_oracle_gives_each_query_the_target_of_the_reliability_loss(labels):
    options = {**aqr(), 'reliability': {'labels': labels}, 'oracle': True}
    head = make_head(aqr=options, voxel_grid=GRID)
    bev, images, samples = with_health(random_batch(), lidar=0.25)
    outputs = head(bev, images, [sample.metainfo for sample in samples])
    expected = torch.tensor([-0.75, 0.0]).expand_as(outputs.router.weights)
    torch.testing.assert_close(outputs.router.weights, expected)
    loss = head.loss(bev, images, samples)['loss_reliability']
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_an_oracle_without_targets_is_refused():
    with pytest.raises(ValueError, match=r'aqr\.oracle takes the targets of aqr\.reliability'):
        make_head(aqr={**aqr(), 'oracle': True}, voxel_grid=GRID)


@pytest.mark.parametrize('labels', ['query', 'frame'])
def test_the_reliability_loss_is_computed_in_full_precision(labels):
    batch = with_health(random_batch(), lidar=1 / 3, camera=1 / 7)
    losses = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            torch.manual_seed(1)  # of the noise of denoising queries
            losses.append(reliable_head({'labels': labels}).loss(*batch)['loss_reliability'])
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-6)


def test_the_reliability_loss_trains_the_router_and_nothing_else():
    head = reliable_head()
    batch = with_health(random_batch(), lidar=0.0, camera=0.5)
    head.loss(*batch)['loss_reliability'].backward()
    reached = {name for name, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == {
        f'aqr_weight_generator.to_weight.{sensor}.{kind}'
        for sensor in ('lidar', 'camera')
        for kind in ('weight', 'bias')
    }  # the first step moves the layer that is zero; behind it all wait for it
    assert (head.aqr_weight_generator.to_weight['lidar'].bias.grad > 0).all()


def test_missing_health_is_named_with_the_remedy():
    with pytest.raises(ValueError, match=r'has no health of .*aqr\.reliability=None'):
        reliable_head().loss(*random_batch())


@pytest.mark.parametrize('missing', ['lidar', 'camera'])
@pytest.mark.parametrize('labels', ['query', 'frame'])
def test_a_reliability_loss_takes_a_batch_without_a_sensor(missing, labels):
    head = reliable_head({'labels': labels}, groups='camera', activation='softmax')
    bev, images, samples = with_health(random_batch(), lidar=0.5, camera=0.0)
    inputs = (None, images) if missing == 'lidar' else (bev, None)
    losses = head.loss(*inputs, samples)
    assert losses['loss_reliability'].item() == pytest.approx(0, abs=1e-7)  # neutral without choice
    sum(losses.values()).backward()


def test_a_reliability_loss_takes_samples_with_fewer_cameras():
    bev, images, samples = random_batch()
    samples[0].set_metainfo({'lidar2img': samples[0].metainfo['lidar2img'][:1]})
    head = reliable_head({'labels': 'frame'}, groups='camera')
    losses = head.loss(*with_health((bev, images, samples), camera=0.0))
    assert losses['loss_reliability'].item() == pytest.approx(3 / 5)  # two LiDARs, three cameras


@torch.no_grad()
def test_a_new_hard_choice_leaves_every_box():
    routed, plain = hard_head().eval(), make_head().eval()
    routed.load_state_dict(plain.state_dict(), strict=False)
    batch = random_batch()
    for ours, theirs in zip(routed.predict(*batch), plain.predict(*batch), strict=True):
        torch.testing.assert_close(
            ours.bboxes_3d.tensor, theirs.bboxes_3d.tensor, atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize('chosen', ['lidar', 'camera'])
def test_a_chosen_sensor_is_seen_alone(chosen):
    head = hard_head().eval()
    head.aqr_weight_generator.to_weight[chosen].bias.fill_(0.1)
    bev, images, samples = random_batch()
    alone = (bev, None) if chosen == 'lidar' else (None, images)
    # Queries keep the embedding of both sensors: the tokens alone are those of one.
    metas = [sample.metainfo for sample in samples]
    cameras = batch_cameras(metas, images)
    query_pos = head.embed_queries(head.reference(2, None), cameras)
    tokens = head.tokenize(*alone, cameras)
    expected = head.transformer(query_pos, tokens=tokens.features, token_pos=tokens.position)
    seen = []
    head.transformer.register_forward_hook(lambda _, args, hidden: seen.append(hidden))
    head.predict(bev, images, samples)
    torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=1e-5)


def least_bias(head):
    """The least bias that a head asks for."""
    seen = spy(head.transformer)
    with torch.no_grad():
        head.eval().predict(*random_batch())
    return seen['routing'].everywhere.min().item()


def test_a_hard_choice_learns_from_its_labels_alone():
    head = hard_head()
    losses = head.loss(*with_health(random_batch(), lidar=0.0))
    assert losses['loss_reliability'].item() == pytest.approx(np.log(3))
    boxes = sum(value for name, value in losses.items() if name != 'loss_reliability')
    linear = head.aqr_weight_generator.to_weight
    boxes.backward(retain_graph=True)
    assert all(p.grad is None for p in linear.parameters())
    losses['loss_reliability'].backward()
    assert {name for name, p in head.named_parameters() if p.grad is None} == set()
    assert linear['camera'].bias.grad < 0 < linear['lidar'].bias.grad
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter -= 10 * parameter.grad
    assert least_bias(head) == MASKED


@pytest.mark.parametrize('missing', ['lidar', 'camera'])
def test_a_sensor_that_is_not_there_is_never_chosen(missing):
    head = hard_head().eval()
    linear = head.aqr_weight_generator.to_weight
    for sensor, value in {'lidar': -5.0, 'camera': -5.0, missing: 5.0}.items():
        torch.nn.init.constant_(linear[sensor].bias, value)
    seen = spy(head.transformer)
    bev, images, samples = random_batch()
    head.predict(*((None, images) if missing == 'lidar' else (bev, None)), samples)
    assert not seen['routing'].everywhere.any()


OPTIONS = {
    'add': {},
    'windows': {'scope': 'both', 'window': 'gaussian', 'groups': 'camera'},
    'softmax': {'activation': 'softmax', 'groups': 'camera'},
    'joint': {'pooling': 'joint', 'activation': 'sigmoid'},
    'gate': {'form': 'gate'},
    'mix': {'form': 'mix', 'groups': 'camera'},
}


def no_cameras(samples):
    for sample in samples:
        sample.set_metainfo({'lidar2img': np.zeros((0, 4, 4))})


def beyond_every_map(head, samples):
    """A grid that ends before the queries begin, and cameras a kilometre behind which all is."""
    head.voxel_grid = VoxelGrid(voxel_size=(0.1, 0.1, 8.0), shape=(1, 64, 64))
    torch.nn.init.constant_(head.reference_points.weight, 0.9)
    for sample in samples:
        away = sample.metainfo['lidar2img'].copy()
        away[:, 2, 3] -= 1000
        sample.set_metainfo({'lidar2img': away})


@pytest.mark.parametrize(
    'case', ['whole', 'no camera', 'one without cameras', 'no bev', 'no image', 'outside']
)
@pytest.mark.parametrize('form', [*OPTIONS, 'scaling'])
def test_a_router_is_safe_in_half_precision(case, form):
    """No overflow, no NaN, with features as large as they get, weights at their limit and pads."""
    head = scaling_head() if form == 'scaling' else routed_head(**OPTIONS[form])
    for linear in head.aqr_weight_generator.to_weight.values():
        torch.nn.init.normal_(linear.weight, std=100.0)
    bev, images, samples = random_batch((2, 2))  # without padded denoising queries, at a corner
    if case == 'no camera':
        no_cameras(samples)
    elif case == 'one without cameras':
        no_cameras(samples[1:])
    elif case == 'outside':
        beyond_every_map(head, samples)
    bev = None if case == 'no bev' else 100 * bev
    images = None if case == 'no image' else 100 * images
    seen = spy(head.aqr_weight_generator)
    with torch.autocast('cpu', torch.bfloat16):
        losses = head.loss(bev, images, samples)
    assert any(part.inside.any() for part in seen['windows']) == (case != 'outside')
    assert all(torch.isfinite(value) for value in losses.values()), losses
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        if parameter.grad is not None:
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'modalities': ['lidar']},
            r"routes between \['lidar', 'camera'\], but modalities is \['l",
        ),
        ({'voxel_grid': None}, 'aqr needs voxel_grid'),
        ({'aqr': {**aqr(), 'windows': {'lidar': 3}}}, "windows is {'lidar': 3}; it must give"),
        ({'aqr': {**aqr(), 'windows': {'lidar': 3, 'camera': 0}}}, 'cells from 1 on'),
        ({'aqr': {**aqr(), 'denoising': 'off'}}, r"denoising is 'off'; it must be one of \['same'"),
        ({'aqr': {**aqr(), 'bias_generator': None}}, 'nothing would use its weights'),
        ({'aqr': aqr(form='hard')}, "a hard choice takes form='hard' .* activation='tanh'"),
        ({'aqr': aqr(form='hard', activation='none')}, 'given are .* no reliability loss'),
        (
            {'aqr': {**aqr(activation='none'), 'reliability': {}}},
            "form='add', activation='none'",
        ),
        (
            {'aqr': {**aqr(), 'reliability': {'labels': 'token'}}},
            "reliability.labels is 'token'; it must be one of",
        ),
        (
            {'aqr': {**aqr(), 'feature_scaling': {'sigma': 0.0}}},
            'sigma is 0.0; it must be above 0',
        ),
    ],
)
def test_a_wrong_router_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        make_head(**{'aqr': aqr(), 'voxel_grid': GRID, **change})


def test_layers_of_the_decoder_can_be_frozen():
    options = {**head_config()['transformer'], 'frozen_stages': 1}
    head = make_head(transformer=options).train()
    frozen = {n for n, p in head.transformer.named_parameters() if not p.requires_grad}
    first = dict(head.transformer.decoder['layers'][0].named_parameters())
    assert frozen == {f'decoder.layers.0.{name}' for name in first}
    assert not head.transformer.layers[0].training
    assert head.transformer.layers[1].training
    with pytest.raises(ValueError, match=r'transformer \(CmtTransformer\): frozen_stages 3'):
        make_head(transformer={**options, 'frozen_stages': 3})
