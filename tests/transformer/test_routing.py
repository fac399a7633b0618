"""Routing forms by hand: biases by group and in windows, clamped; gates, mixes and their scales."""

import pytest
import torch

from projects.cmt_aqr.aqr import TokenLayout, Windows
from projects.cmt_aqr.transformer import BiasRouting, GateRouting, MixRouting

LAYOUT = TokenLayout(bev=(2, 2), image=(1, 2), num_cameras=2)  # tokens 0-3, 4-5, 6-7
GROUPS = {
    grouping: LAYOUT.groups(grouping, torch.device('cpu')) for grouping in ('modality', 'camera')
}


def make_windows(sample, query, group, token, inside=None):
    token = torch.tensor(token)
    inside = torch.ones_like(token, dtype=torch.bool) if inside is None else torch.tensor(inside)
    offset = torch.zeros(*token.shape, 2)
    return Windows(*map(torch.tensor, (sample, query, group)), token, inside, offset)


LIDAR = make_windows([0, 0], [0, 1], [0, 0], [[0, 1], [2, 0]], [[True, True], [True, False]])
CAMERA = make_windows([0, 0], [0, 0], [1, 2], [[4], [6]])


def ask(form, weights, grouping='modality', windows=(LIDAR, CAMERA)):
    return form(torch.as_tensor([weights]), groups=GROUPS[grouping], windows=windows)


def bias(weights, grouping='modality', windows=(LIDAR, CAMERA), **options):
    form = BiasRouting(num_heads=1, **options)
    return form.dense_bias(ask(form, weights, grouping, windows))[0]


def test_global_biases_are_scale_times_weight_for_every_token_of_the_group():
    assert bias([[0.4, -0.2]]).tolist() == [[1.0] * 4 + [-0.5] * 4]


def test_each_camera_has_a_bias_of_its_own():
    result = bias([[0.0, 0.4, -0.4]], grouping='camera')
    assert result.tolist() == [[0.0] * 4 + [1.0] * 2 + [-1.0] * 2]


def test_local_biases_stay_in_the_windows():
    result = bias([[0.4, -0.2], [1.0, 1.0]], scope='local')
    assert result[0].tolist() == [1, 1, 0, 0, -0.5, 0, -0.5, 0]
    # Query 1 has one LiDAR cell on the map, and no camera sees it.
    assert result[1].tolist() == [0, 0, 2.5, 0, 0, 0, 0, 0]


def test_local_biases_of_each_camera():
    result = bias([[0.0, 0.4, -0.4]], grouping='camera', scope='local', windows=(CAMERA,))
    assert result[0].tolist() == [0, 0, 0, 0, 1, 0, -1, 0]


def test_both_scopes_are_summed_and_then_clamped():
    result = bias(
        [[0.4, -1.0]], scope='both', windows=(LIDAR._replace(query=LIDAR.query * 0), CAMERA)
    )
    assert result[0, :4].tolist() == [2, 2, 2, 1]
    assert result[0, 4:].tolist() == [-5, -2.5, -5, -2.5]
    clamped = bias([[0.4, -1.0]], scope='both', limit=3.0, windows=(CAMERA,))
    assert clamped[0, 4:].tolist() == [-3, -2.5, -3, -2.5]


@pytest.mark.parametrize('scope', ['global', 'local', 'both'])
def test_zero_weights_give_zero_bias_and_have_a_gradient(scope):
    form = BiasRouting(num_heads=1, scope=scope)
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    result = form.dense_bias(form(weights, groups=GROUPS['modality'], windows=(LIDAR, CAMERA)))
    assert (result == 0).all()
    (result * torch.arange(1.0, 9)).sum().backward()
    assert (weights.grad[0, 0] != 0).all()


def test_scales_are_clamped_and_keep_their_gradient_at_the_limit():
    form = BiasRouting(num_heads=1)
    with torch.no_grad():
        form.bias_scale.copy_(torch.tensor([[0.1, 7.0]]))
    form.clamp_scales_()
    assert form.bias_scale.tolist() == [[0.5, 5.0]]
    assert form.scales_at_limit() == {'scale_global_lidar': 0.5, 'scale_global_camera': 5.0}
    form.dense_bias(ask(form, [[0.1, 0.2]])).sum().backward()
    torch.testing.assert_close(form.bias_scale.grad, torch.tensor([[0.4, 0.8]]))


def test_every_scope_has_scales_of_its_own():
    form = BiasRouting(num_heads=1, scope='both')
    with torch.no_grad():
        form.bias_scale[1, 1] = 3.5
    assert form.log_values() == {
        'scale_global_lidar': 2.5,
        'scale_global_camera': 2.5,
        'scale_local_lidar': 2.5,
        'scale_local_camera': 3.5,
    }
    assert form.learns_scales
    assert not form.requires_grad_(False).learns_scales


LSE = torch.tensor([0.0, 1.0]).expand(1, 2, 1, 2)  # two heads, one query
ALL = torch.ones(1, 1, 1, 2, dtype=torch.bool)


def test_a_gate_scales_the_share_of_each_group_and_has_nothing_to_learn():
    form = GateRouting(num_heads=2)
    shares = ask(form, [[0.4, -1.0]]).shares(LSE, ALL)
    lidar = torch.tensor(-1.0).sigmoid()
    torch.testing.assert_close(shares, torch.tensor([1.4 * lidar, 0]).expand_as(LSE))
    form.clamp_scales_()
    assert (list(form.parameters()), form.learns_scales, form.log_values()) == ([], False, {})


def test_a_mix_has_a_bias_and_a_temperature_for_each_head():
    form = MixRouting(num_heads=2)
    with torch.no_grad():
        form.temperature.copy_(torch.tensor([1.0, 4.0]))
    shares = ask(form, [[0.4, -0.2]]).shares(LSE, ALL)
    gaps = torch.tensor([-1.0 + 1.5, -0.25 + 1.5])  # biases 1 and -0.5
    torch.testing.assert_close(shares[0, :, 0, 0], gaps.sigmoid())
    assert {name for name, _ in form.named_parameters()} == {'bias_scale', 'temperature'}
    assert form.log_values()['temperature'] == 2.5


@pytest.mark.parametrize('form', [BiasRouting, GateRouting, MixRouting])
def test_an_absent_group_has_no_share_and_gives_finite_gradients(form):
    form = form(num_heads=2)
    lse = LSE.clone().requires_grad_()
    shares = ask(form, [[-0.5, 0.5]]).shares(lse, torch.tensor([[[[True, False]]]]))
    assert not shares[..., 1].any()
    shares.sum().backward()
    assert lse.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in form.parameters() if p.grad is not None)


def test_temperatures_are_clamped_from_below():
    form = MixRouting(num_heads=3)
    with torch.no_grad():
        form.temperature.copy_(torch.tensor([0.2, 1.0, 4.0]))
    form.clamp_scales_()
    assert form.temperature.tolist() == [1, 1, 4]


def clamped(form, weights, **options):
    """Whether each query is clamped; query 0 has a window on the LiDAR token 1."""
    form = form(num_heads=2, **options)
    window = make_windows([0], [0], [0], [[1, 0]], [[True, False]])
    result = form.clamped_queries(ask(form, weights, windows=(window,)))
    return None if result is None else result[0].tolist()


@pytest.mark.parametrize('form', [BiasRouting, MixRouting])
def test_a_query_is_clamped_if_any_of_its_biases_is_at_the_limit(form):
    weights = [[0.0, 0.98], [0.0, -0.995], [1.0, 1.0], [0.0, 0.0]]
    assert clamped(form, weights, initial_scale=5.0) == [False, True, True, False]
    assert clamped(GateRouting, weights) is None


@pytest.mark.parametrize(
    ('weights', 'scope', 'expected'),
    [
        ([[0.6, 0.0], [0.6, 0.0]], 'both', [True, False]),  # 3 everywhere, 3 more in the window
        ([[0.6, 0.0], [0.6, 0.0]], 'local', [False, False]),
        ([[1.0, 0.0], [1.0, 0.0]], 'local', [True, False]),
        ([[0.0, 0.9], [0.0, 0.9]], 'both', [False, False]),
    ],
)
def test_in_windows_the_sum_of_both_scopes_counts(weights, scope, expected):
    assert clamped(BiasRouting, weights, scope=scope, initial_scale=5.0) == expected


@pytest.mark.parametrize(
    ('form', 'options', 'message'),
    [
        (BiasRouting, {'scope': 'near'}, r"scope is 'near'; it must be one of \['global', 'local'"),
        (BiasRouting, {'initial_scale': 6.0}, r'initial_scale is 6.0; it must lie within scale_r'),
        (MixRouting, {'scale_range': (0.0, 5.0)}, 'which must be above 0'),
        (MixRouting, {'limit': 0.0}, r'limit is 0.0; it must be above 0'),
    ],
)
def test_a_wrong_option_is_named(form, options, message):
    with pytest.raises(ValueError, match=message):
        form(num_heads=1, **options)


def test_a_temperature_is_no_scale_at_its_limit():
    form = MixRouting(num_heads=2)
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.fill_(5.0)
    assert all(name.startswith('scale_') for name in form.scales_at_limit())
