"""A constant added to every query's embedding is the same as other biases of attention."""

import copy

import torch

from projects.cmt_aqr.conversion.type_embeddings import fold_type_embeddings
from projects.cmt_aqr.transformer import CmtTransformer

CHANNELS = 16
PREFIX = 'pts_bbox_head.transformer.'


def test_a_decoder_with_other_biases_is_one_with_shifted_queries():
    shifted = CmtTransformer(
        CHANNELS, num_layers=2, num_heads=2, feedforward_channels=32, dropout=0.0
    )
    with torch.no_grad():
        for parameter in shifted.parameters():
            parameter.normal_(std=0.3)
    folded = copy.deepcopy(shifted)
    embeddings = torch.randn(2, CHANNELS)
    state = {PREFIX + name: value.clone() for name, value in shifted.state_dict().items()}
    fold_type_embeddings(state, [*embeddings])
    folded.load_state_dict({n.removeprefix(PREFIX): value for n, value in state.items()})

    query = torch.randn(1, 5, CHANNELS)
    tokens = dict(tokens=torch.randn(1, 7, CHANNELS), token_pos=torch.randn(1, 7, CHANNELS))
    with torch.no_grad():
        expected = shifted(query + embeddings.sum(0), **tokens).hidden
        torch.testing.assert_close(folded(query, **tokens).hidden, expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(shifted(query, **tokens).hidden, expected, atol=0.1)


def test_the_layer_of_the_router_is_folded_as_well_and_nothing_else():
    router = 'pts_bbox_head.router.aqr_weight_generator.attention.'
    other = 'pts_bbox_head.other.'
    weight, bias = torch.randn(3 * CHANNELS, CHANNELS), torch.zeros(3 * CHANNELS)
    state = {
        prefix + name: value.clone()
        for prefix in (router, other)
        for name, value in (('in_proj_weight', weight), ('in_proj_bias', bias))
    }
    embedding = torch.randn(CHANNELS)
    fold_type_embeddings(state, [embedding])
    query, rest = state[f'{router}in_proj_bias'].split([CHANNELS, 2 * CHANNELS])
    torch.testing.assert_close(query, weight[:CHANNELS] @ embedding)
    assert rest.count_nonzero() == 0
    assert torch.equal(state[f'{router}in_proj_weight'], weight)
    assert torch.equal(state[f'{other}in_proj_bias'], bias)
