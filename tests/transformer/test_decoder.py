"""The decoder's structure, names and masks."""

import torch
from torch import nn

from projects.cmt_aqr.transformer import CmtTransformer
from projects.cmt_aqr.transformer.decoder import ResidualAttention


def make():
    torch.manual_seed(0)
    return CmtTransformer(16, num_layers=2, num_heads=4, feedforward_channels=32).eval()


def test_one_normalised_output_for_each_layer():
    tokens = torch.randn(2, 9, 16)
    outputs = make()(torch.randn(2, 5, 16), tokens=tokens, token_pos=torch.zeros(1)).hidden
    assert outputs.shape == (2, 2, 5, 16)
    torch.testing.assert_close(outputs.mean(-1), torch.zeros(2, 2, 5), atol=1e-5, rtol=0)


def test_the_mask_of_self_attention_separates_queries():
    transformer, tokens = make(), torch.randn(1, 9, 16)
    query_pos = torch.randn(1, 5, 16)
    group = torch.tensor([0, 0, 1, 1, 1])
    mask = group[:, None] == group[None, :]
    full = transformer(query_pos, tokens=tokens, token_pos=tokens, self_attn_mask=mask).hidden
    alone = transformer(query_pos[:, :2], tokens=tokens, token_pos=tokens).hidden
    torch.testing.assert_close(full[:, :, :2], alone)


def test_no_attention_dropout_between_queries_and_tokens():
    layers = CmtTransformer(16, num_layers=2, num_heads=4, dropout=0.1).layers
    assert [layer.attentions[0].attn.dropout for layer in layers] == [0.1, 0.1]
    assert [layer.attentions[1].attn.dropout for layer in layers] == [0.0, 0.0]


def test_what_attention_adds_is_dropped_in_training_alone():
    class Ones(nn.Module):
        def forward(self, query, key, value):
            return torch.ones_like(query)

    block = ResidualAttention(Ones(), dropout=0.5)
    query = torch.randn(1, 40, 8)
    added = {
        mode: (block.train(mode)(query, query_pos=0 * query, key=query, value=query) - query)
        for mode in (True, False)
    }
    assert added[True].round().unique().tolist() == [0, 2]
    assert added[False].round().unique().tolist() == [1]
