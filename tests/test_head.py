"""The head against the numbers of the public CMT, and on input that the public code fails on."""

import importlib.util
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmdet.models.layers.transformer import inverse_sigmoid
from mmdet3d.structures import LiDARInstance3DBoxes
from mmengine.structures import InstanceData
from small_head import (
    CLASSES,
    RANGE,
    head_config,
    make_head,
    random_batch,
    routed_head,
    samples_of,
    wake,
)

from projects.cmt_aqr.cameras import batch_cameras
from projects.cmt_aqr.geometry import project, unit_to_metres


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


def reference_samples(numbers, metas):
    boxes = [torch.from_numpy(numbers[f'gt_box{i}']) for i in range(len(metas))]
    labels = [torch.from_numpy(numbers[f'gt_label{i}']) for i in range(len(metas))]
    return samples_of(metas, boxes, labels)


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
        ({'all_combinations': True, 'modalities': ['lidar']}, 'name both modalities'),
        ({'all_combinations': True, 'aqr': {}}, 'without a router'),
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


@pytest.mark.parametrize('modalities', [['lidar', 'camera'], ['lidar'], ['camera']])
def test_a_head_with_local_attention_starts_so_and_trains(modalities):
    head = make_head(modalities=modalities, init_local_attention={'lidar': 3.0, 'camera': 4.0})
    for layer in head.transformer.layers:
        query, key, _ = layer.attentions[1].attn.in_proj_weight.chunk(3)
        assert torch.equal(query, key)
    embeddings = dict(lidar='bev_embedding', camera='rv_embedding')
    for kind, modality in enumerate(modalities):  # each has channels of its own
        bias = getattr(head, embeddings[modality])[-1].bias.unflatten(0, (len(modalities), -1))
        assert bias[kind].any()
        assert not bias[torch.arange(len(modalities)) != kind].any()
    bev, images, samples = random_batch()
    inputs = (bev if 'lidar' in modalities else None, images if 'camera' in modalities else None)
    assert all(torch.isfinite(value) for value in head.loss(*inputs, samples).values())


def test_a_checkpoint_from_before_the_router_was_a_module_is_renamed():
    head = routed_head('BiasRouting')
    wake(head)
    state = {name.replace('router.', ''): value for name, value in head.state_dict().items()}
    assert 'attention_bias_generator.bias_scale' in state
    other = routed_head('BiasRouting')
    other.load_state_dict(state)
    for name, value in head.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


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


def test_all_combinations_decode_each_modality_as_if_the_other_were_masked():
    transformer = {**head_config()['transformer'], 'dropout': 0.0}
    head = make_head(all_combinations=True, denoising=None, transformer=transformer)
    bev, images, samples = random_batch()
    metas = [sample.metainfo for sample in samples]
    output = head(bev, images, metas)
    assert output.alone.keys() == {'lidar', 'camera'}
    tokens = head.tokenize(bev, images, batch_cameras(metas, like=images))
    is_lidar = torch.arange(tokens.features.shape[1]).expand(len(bev), -1) < bev[0, 0].numel()
    for modality, mask in (('lidar', is_lidar), ('camera', ~is_lidar)):
        masked_tokens = tokens._replace(token_mask=mask)
        head.tokenize = Mock(return_value=masked_tokens)
        (masked,) = head.eval()(bev, images, metas).tasks
        (found,) = output.alone[modality]
        for name, value in found.items():
            torch.testing.assert_close(value, masked[name], atol=1e-4, rtol=1e-4)


def test_all_combinations_add_the_same_losses_for_each_modality_in_training_alone():
    torch.manual_seed(0)
    batch = random_batch()
    plain, head = make_head(), make_head(all_combinations=True)
    torch.manual_seed(1)
    losses = plain.loss(*batch)
    torch.manual_seed(1)
    more = head.loss(*batch)
    assert more.keys() == {f'{p}{name}' for p in ('', 'lidar.', 'camera.') for name in losses}
    assert all(torch.equal(more[name], value) for name, value in losses.items())
    (of_lidar,) = torch.autograd.grad(
        more['lidar.loss_cls'], head.rv_embedding[0].weight, retain_graph=True
    )
    assert of_lidar.abs().sum() > 0  # of the queries, which know their rays
    bev, images, samples = batch
    with pytest.raises(ValueError, match='a sample without them: leave'):
        head.loss(bev, None, samples)
    samples[0].set_metainfo(dict(lidar2img=np.zeros((0, 4, 4))))
    with pytest.raises(ValueError, match='a sample without them'):
        head.loss(*batch)
    samples[0].set_metainfo(dict(lidar2img=samples[1].lidar2img))
    assert head.eval()(bev, images, [s.metainfo for s in samples]).alone == {}
