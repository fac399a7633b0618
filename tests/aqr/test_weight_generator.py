"""The weight generator against dense masked attention, and at its neutral value."""

import pytest
import torch
import torch.nn.functional as F

from projects.cmt_aqr.aqr import AQRWeightGenerator, TokenLayout, Windows
from projects.cmt_aqr.aqr.weight_generator import ACTIVATIONS, WindowAttention

LAYOUT = TokenLayout(bev=(4, 4), image=(2, 3), num_cameras=2)
NUM_TOKENS = 28
BATCH, QUERIES, CHANNELS = 2, 5, 16


def make_windows(pairs, tokens, inside=None):
    """Windows of (sample, query, group) with a list of tokens each."""
    sample, query, group = torch.tensor(pairs).T
    token = torch.tensor(tokens)
    inside = torch.ones_like(token, dtype=torch.bool) if inside is None else torch.tensor(inside)
    return Windows(sample, query, group, token, inside, torch.zeros(*token.shape, 2))


LIDAR = make_windows(
    [(0, 0, 0), (0, 1, 0), (1, 2, 0), (1, 3, 0)],
    [[0, 1, 2], [3, 4, 5], [6, 7, 0], [8, 9, 0]],
    [[True] * 3, [True] * 3, [True, True, False], [False] * 3],
)
# Query 0 of sample 0 is seen by both cameras, query 4 of sample 1 by the second.
CAMERA = make_windows([(0, 0, 1), (0, 0, 2), (1, 4, 2)], [[16, 17], [22, 23], [24, 27]])


def inputs():
    query = torch.randn(BATCH, QUERIES, CHANNELS)
    value = torch.randn(BATCH, NUM_TOKENS, CHANNELS)
    return query, value + torch.randn_like(value), value


def make_generator(**options):
    return AQRWeightGenerator(CHANNELS, feedforward_channels=32, **options)


def awake(generator):
    """With weights in the linear layer that starts at zero."""
    for linear in generator.to_weight.values():
        torch.nn.init.normal_(linear.weight)
        torch.nn.init.normal_(linear.bias)
    return generator


def run(generator, windows=(LIDAR, CAMERA), layout=LAYOUT, seed=0, **options):
    torch.manual_seed(seed)
    return generator(*inputs(), layout=layout, windows=windows, **options)


def dense_mask(*parts):
    mask = torch.zeros(BATCH, QUERIES, NUM_TOKENS, dtype=torch.bool)
    for part in parts:
        for sample, query, tokens, inside in zip(
            part.sample, part.query, part.token, part.inside, strict=True
        ):
            mask[sample, query, tokens[inside]] = True
    return mask


def test_one_softmax_over_all_windows_equals_dense_masked_attention():
    attention = WindowAttention(CHANNELS, num_heads=4).double()
    torch.nn.init.normal_(attention.in_proj_bias)
    torch.nn.init.normal_(attention.out_proj.bias)
    query, key, value = (x.double().requires_grad_() for x in inputs())
    slotted = [(part, part.sample * QUERIES + part.query) for part in (LIDAR, CAMERA)]
    pooled = attention(query, key, value, slotted, groups=1).view_as(query)

    mask = dense_mask(LIDAR, CAMERA)
    q, k, v = attention.project(query, key, value)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    expected = attention.out_proj(expected.transpose(1, 2).flatten(2))
    seen = mask.any(-1)
    # The sums are made in single precision whatever the input.
    torch.testing.assert_close(pooled[seen], expected[seen], atol=1e-5, rtol=1e-5)
    assert (pooled[~seen] == 0).all()

    probe = torch.randn_like(expected[seen])
    wanted = [query, key, value, attention.in_proj_weight]
    ours = torch.autograd.grad((pooled[seen] * probe).sum(), wanted, retain_graph=True)
    dense = torch.autograd.grad((expected[seen] * probe).sum(), wanted)
    for mine, theirs in zip(ours, dense, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_large_logits_stay_finite():
    attention = WindowAttention(CHANNELS, num_heads=4)
    query, key, value = inputs()
    slotted = [(LIDAR, LIDAR.sample * QUERIES + LIDAR.query)]
    pooled = attention(query * 1e4, key, value, slotted, groups=1)
    assert pooled.isfinite().all()


@pytest.mark.parametrize('activation', ACTIVATIONS)
@pytest.mark.parametrize('groups', ['modality', 'camera'])
def test_new_weights_are_exactly_neutral(activation, groups):
    weights = run(make_generator(activation=activation, groups=groups))
    assert weights.shape == (BATCH, QUERIES, LAYOUT.num_groups(groups))
    assert (weights == 0).all()


@pytest.mark.parametrize('activation', ACTIVATIONS)
def test_the_linear_layer_learns_from_its_zeros(activation):
    generator = make_generator(activation=activation)
    run(generator)[..., 0].sum().backward()
    assert generator.to_weight['lidar'].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ('activation', 'low', 'high'), [('tanh', -1, 1), ('sigmoid', -0.5, 0.5), ('softmax', -0.5, 0.5)]
)
def test_weights_stay_within_their_activation(activation, low, high):
    generator = awake(make_generator(activation=activation))
    for linear in generator.to_weight.values():
        linear.weight.data *= 100
    weights = run(generator)
    assert weights.min() >= low
    assert weights.max() <= high
    assert weights.std() > 0.1


@pytest.mark.parametrize('groups', ['modality', 'camera'])
def test_softmax_weights_sum_to_zero_over_the_valid_groups(groups):
    generator = awake(make_generator(activation='softmax', groups=groups))
    camera_mask = torch.tensor([[True, True], [True, False]])
    weights = run(generator, camera_mask=camera_mask)
    torch.testing.assert_close(weights.sum(-1), torch.zeros(BATCH, QUERIES), atol=1e-6, rtol=0)
    if groups == 'camera':
        assert (weights[1, :, 2] == 0).all()
        assert (weights[0, :, 2] != 0).all()


@pytest.mark.parametrize('groups', ['modality', 'camera'])
def test_a_weight_depends_on_the_tokens_in_the_windows_alone(groups):
    generator = awake(make_generator(groups=groups))
    query, key, value = inputs()
    options = dict(layout=LAYOUT, windows=(LIDAR, CAMERA))
    before = generator(query, key, value, **options)
    seen = dense_mask(LIDAR, CAMERA).any(1)  # (B, K)
    value = torch.where(seen[..., None], value, torch.randn_like(value))
    assert torch.equal(generator(query, key, value, **options), before)
    value[0, 16] += 1  # in a camera window of query 0 of sample 0
    changed = (generator(query, key, value, **options) != before).any(-1)
    assert changed.nonzero().tolist() == [[0, 0]]


def test_each_camera_changes_its_own_weight_and_lidar():
    generator = awake(make_generator(groups='camera'))
    query, key, value = inputs()
    options = dict(layout=LAYOUT, windows=(LIDAR, CAMERA))
    before = generator(query, key, value, **options)
    value = value.clone()
    value[0, 22] += 1  # the second camera's window
    changed = generator(query, key, value, **options) != before
    assert changed[0, 0].tolist() == [True, False, True]


def test_without_a_sensor_its_weight_is_zero():
    generator = awake(make_generator())
    lidar_only = run(generator, windows=(LIDAR,), layout=LAYOUT._replace(image=None, num_cameras=0))
    assert (lidar_only[..., 1] == 0).all()
    assert (lidar_only[..., 0] != 0).all()
    camera_only = run(generator, windows=(CAMERA,), layout=LAYOUT._replace(bev=None))
    assert (camera_only[..., 0] == 0).all()


def test_half_precision_is_used_outside_of_the_sums_alone():
    generator = awake(make_generator())
    expected = run(generator)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(run(generator).float(), expected, atol=0.1, rtol=0.1)


@pytest.mark.parametrize('option', ['activation', 'groups'])
def test_an_unknown_option_is_named(option):
    with pytest.raises(ValueError, match=f"{option} is 'nothing'; it must be one of"):
        make_generator(**{option: 'nothing'})


@pytest.mark.parametrize('groups', ['modality', 'camera'])
def test_every_parameter_takes_part_in_the_loss(groups):
    generator = awake(make_generator(groups=groups))
    run(generator).sum().backward()
    assert [name for name, p in generator.named_parameters() if p.grad is None] == []


def test_what_is_pooled_is_not_drowned_by_a_large_query_embedding():
    """The tiny CMT's query embeddings are twenty times as large as what its tokens hold."""
    generator = awake(make_generator())
    query, key, value = inputs()
    options = dict(layout=LAYOUT, windows=(LIDAR, CAMERA))
    alive = generator(20 * query, key, value, **options)
    dead = generator(20 * query, key, torch.zeros_like(value), **options)
    seen = dense_mask(LIDAR, CAMERA).any(-1)
    assert (alive - dead)[seen].abs().mean() > 0.1
