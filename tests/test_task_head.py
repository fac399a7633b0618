"""The branches: which queries and layers an output depends on."""

import pytest
import torch

from projects.cmt_aqr.task_head import CLASS_BRANCH, SeparateTaskHead

LAYERS, BATCH, QUERIES, CHANNELS = 2, 2, 7, 8
BRANCHES = {'center': 2, CLASS_BRANCH: 3}


def make_head(final_kernel: int) -> SeparateTaskHead:
    options = dict(branches=BRANCHES, num_layers=LAYERS, hidden_channels=6)
    return SeparateTaskHead(CHANNELS, final_kernel=final_kernel, **options)


@pytest.mark.parametrize('final_kernel', [1, 3])
def test_keys_and_shapes(final_kernel):
    weights = {
        name: tuple(value.shape)
        for name, value in make_head(final_kernel).state_dict().items()
        if value.dim() == 3
    }
    assert weights == {
        'center.0.weight': (LAYERS * 6, CHANNELS, final_kernel),
        'center.3.weight': (LAYERS * 2, 6, final_kernel),
        f'{CLASS_BRANCH}.0.weight': (LAYERS * 6, CHANNELS, final_kernel),
        f'{CLASS_BRANCH}.3.weight': (LAYERS * 3, 6, final_kernel),
    }


@pytest.mark.parametrize(('final_kernel', 'reach'), [(1, 0), (3, 2)])
def test_an_output_sees_its_query_its_layer_and_its_neighbours(final_kernel, reach):
    hidden = torch.randn(LAYERS, BATCH, QUERIES, CHANNELS, requires_grad=True)
    outputs = make_head(final_kernel)(hidden)
    assert {name: value.shape for name, value in outputs.items()} == {
        name: (LAYERS, BATCH, QUERIES, count) for name, count in BRANCHES.items()
    }
    (gradient,) = torch.autograd.grad(sum(out[1, 0, 3].sum() for out in outputs.values()), hidden)
    seen = gradient.abs().sum(dim=-1).nonzero().tolist()
    assert seen == [[1, 0, query] for query in range(3 - reach, 3 + reach + 1)]


def test_kernels_of_three_that_are_zero_round_the_middle_are_kernels_of_one():
    one, three = make_head(1), make_head(3)
    state = {
        name: torch.nn.functional.pad(value, (1, 1)) if value.dim() == 3 else value
        for name, value in one.state_dict().items()
    }
    three.load_state_dict(state)
    hidden = torch.randn(LAYERS, BATCH, QUERIES, CHANNELS)
    torch.testing.assert_close(three(hidden), one(hidden))


@pytest.mark.parametrize('final_kernel', [1, 3])
def test_the_last_layer_alone_equals_itself_among_all(final_kernel):
    head = make_head(final_kernel)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    hidden = torch.randn(LAYERS, BATCH, QUERIES, CHANNELS)
    alone = head.last_layer(hidden[-1])
    for name, value in head(hidden).items():
        torch.testing.assert_close(alone[name], value[-1:])
