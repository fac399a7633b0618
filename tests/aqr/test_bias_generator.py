"""Biases by hand: by group, in windows, clamped; and scales kept in their range."""

import pytest
import torch

from projects.cmt_aqr.aqr import AttentionBiasGenerator, TokenLayout, Windows

LAYOUT = TokenLayout(bev=(2, 2), image=(1, 2), num_cameras=2)  # tokens 0-3, 4-5, 6-7
GROUPS = {
    grouping: LAYOUT.groups(grouping, torch.device('cpu')) for grouping in ('modality', 'camera')
}


def make_windows(sample, query, group, token, inside=None, offset=None):
    token = torch.tensor(token)
    inside = torch.ones_like(token, dtype=torch.bool) if inside is None else torch.tensor(inside)
    offset = torch.zeros(*token.shape, 2) if offset is None else torch.tensor(offset)
    return Windows(
        torch.tensor(sample), torch.tensor(query), torch.tensor(group), token, inside, offset
    )


LIDAR = make_windows([0, 0], [0, 1], [0, 0], [[0, 1], [2, 0]], [[True, True], [True, False]])
CAMERA = make_windows([0, 0], [0, 0], [1, 2], [[4], [6]])


def bias(weights, grouping='modality', windows=(LIDAR, CAMERA), **options):
    generator = AttentionBiasGenerator(**options)
    return generator(torch.tensor([weights]), groups=GROUPS[grouping], windows=windows).dense()[0]


def test_global_biases_are_scale_times_weight_for_every_token_of_the_group():
    result = bias([[0.4, -0.2]])
    assert result.tolist() == [[1.0] * 4 + [-0.5] * 4]


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


def test_both_scopes_are_summed_and_then_limited():
    result = bias(
        [[0.4, -1.0]], scope='both', windows=(LIDAR._replace(query=LIDAR.query * 0), CAMERA)
    )
    assert result[0, :4].tolist() == [2, 2, 2, 1]
    assert result[0, 4:].tolist() == [-5, -2.5, -5, -2.5]
    limited = bias([[0.4, -1.0]], scope='both', limit=3.0, windows=(CAMERA,))
    assert limited[0, 4:].tolist() == [-3, -2.5, -3, -2.5]


def test_both_scopes_have_scales_of_their_own():
    assert AttentionBiasGenerator(scope='global').bias_scale.shape == (1, 2)
    assert AttentionBiasGenerator(scope='both').bias_scale.shape == (2, 2)


def test_a_gaussian_falls_with_the_distance_in_cells():
    windows = make_windows([0], [0], [0], [[0, 1]], offset=[[[0.0, 0.0], [1.0, 0.0]]])
    result = bias([[0.4, 0.0]], scope='local', window='gaussian', windows=(windows,), sigma=0.5)
    sigma = 0.5 * 2**0.5  # two cells count as a window of side sqrt(2)
    expected = [1.0, torch.exp(torch.tensor(-1 / (2 * sigma**2))).item()]
    torch.testing.assert_close(result[0, :2], torch.tensor(expected))


def test_a_gaussian_ends_with_its_window():
    windows = make_windows([0], [0], [0], [[0, 0]], [[True, False]])
    result = bias([[0.4, 0.0]], scope='local', window='gaussian', windows=(windows,))
    assert result[0, 0] == 1.0


@pytest.mark.parametrize('scope', ['global', 'local', 'both'])
@pytest.mark.parametrize('window', ['box', 'gaussian'])
def test_zero_weights_give_zero_bias_and_have_a_gradient(scope, window):
    generator = AttentionBiasGenerator(scope=scope, window=window)
    weights = torch.zeros(1, 2, 2, requires_grad=True)
    result = generator(weights, groups=GROUPS['modality'], windows=(LIDAR, CAMERA)).dense()
    assert (result == 0).all()
    (result * torch.arange(1.0, 9)).sum().backward()
    assert (weights.grad[0, 0] != 0).all()


def test_scales_are_projected_and_keep_their_gradient_at_the_limit():
    generator = AttentionBiasGenerator()
    with torch.no_grad():
        generator.bias_scale.copy_(torch.tensor([[0.1, 7.0]]))
    generator.project_scales()
    assert generator.bias_scale.tolist() == [[0.5, 5.0]]
    weights = torch.tensor([[[0.1, 0.2]]])
    generator(weights, groups=GROUPS['modality'], windows=()).dense().sum().backward()
    torch.testing.assert_close(generator.bias_scale.grad, torch.tensor([[0.4, 0.8]]))


def test_a_fixed_scale_is_a_buffer_of_the_same_name():
    learned = AttentionBiasGenerator(scope='both')
    fixed = AttentionBiasGenerator(scope='both', initial_scale=4.0, learn_scale=False)
    assert list(fixed.parameters()) == []
    assert fixed.state_dict().keys() == learned.state_dict().keys() == {'bias_scale'}
    assert (fixed.bias_scale == 4).all()
    weights = torch.tensor([[[0.5, -0.25]]], requires_grad=True)
    fixed(weights, groups=GROUPS['modality'], windows=()).dense().sum().backward()
    assert weights.grad.tolist() == [[[16, 16]]]
    fixed.project_scales()
    fixed.load_state_dict(learned.state_dict())
    assert (fixed.bias_scale == 2.5).all()


def test_layers_may_have_scales_of_their_own():
    generator = AttentionBiasGenerator(scope='both', scales='per_layer', num_layers=3)
    assert generator.bias_scale.shape == (3, 2, 2)
    with torch.no_grad():
        generator.bias_scale[1, 0] = torch.tensor([1.0, 5.0])
    weights = torch.tensor([[[0.4, -0.2]]])
    layers = generator(weights, groups=GROUPS['modality'], windows=())
    strengths = [layer.everywhere[0, 0].tolist() for layer in layers]
    assert strengths == [[1.0, -0.5], pytest.approx([0.4, -1.0]), [1.0, -0.5]]
    mix = AttentionBiasGenerator(form='mix', num_heads=2, scales='per_layer', num_layers=3)
    assert len(mix(weights, groups=GROUPS['modality'], windows=())) == 3


def test_a_gate_has_gains_round_one_and_nothing_to_learn():
    generator = AttentionBiasGenerator(form='gate')
    gate = generator(torch.tensor([[[0.4, -1.0]]]), groups=GROUPS['modality'], windows=())
    torch.testing.assert_close(gate.gains, torch.tensor([[[1.4, 0.0]]]))
    assert list(generator.parameters()) == []
    generator.project_scales()


def test_a_mix_has_a_bias_and_a_temperature_for_each_head():
    generator = AttentionBiasGenerator(form='mix', num_heads=3)
    weights = torch.tensor([[[0.4, -0.2]]])
    mix = generator(weights, groups=GROUPS['modality'], windows=())
    assert mix.bias.tolist() == [[[1.0, -0.5]]]
    assert mix.temperature.tolist() == [1, 1, 1]
    assert {name for name, _ in generator.named_parameters()} == {'bias_scale', 'temperature'}


def test_temperatures_are_projected():
    generator = AttentionBiasGenerator(form='mix', num_heads=3)
    with torch.no_grad():
        generator.temperature.copy_(torch.tensor([0.2, 1.0, 4.0]))
    generator.project_scales()
    assert generator.temperature.tolist() == [1, 1, 4]


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'form': 'scale'}, r"form is 'scale'; it must be one of \['add', 'gate', 'mix', 'hard'\]"),
        ({'form': 'gate', 'scope': 'both'}, "form='gate' acts on whole sensors: scope is 'both'"),
        ({'form': 'mix', 'scope': 'local', 'num_heads': 3}, "form='mix' acts on whole sensors"),
        ({'form': 'mix'}, "form='mix' learns a temperature for each head; it needs num_heads"),
        ({'scope': 'near'}, r"scope is 'near'; it must be one of \['global', 'local', 'both'\]"),
        ({'window': 'disc'}, r"window is 'disc'; it must be one of \['box', 'gaussian'\]"),
        ({'initial_scale': 6.0}, r'initial_scale is 6.0; it must lie within scale_range'),
        ({'scales': 'own'}, r"scales is 'own'; it must be one of \['shared', 'per_layer'\]"),
        ({'scales': 'per_layer'}, "scales='per_layer' needs num_layers, and a form of"),
        ({'scales': 'per_layer', 'form': 'gate', 'num_layers': 2}, r"a form of \['add', 'mix'\]"),
        ({'scales': 'per_layer', 'form': 'hard', 'num_layers': 2}, r"a form of \['add', 'mix'\]"),
        ({'form': 'hard', 'scope': 'local'}, "form='hard' acts on whole sensors"),
        ({'sigma': 0.0}, r'sigma \(0.0\) and limit \(5.0\) must be above 0'),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        AttentionBiasGenerator(**options)
