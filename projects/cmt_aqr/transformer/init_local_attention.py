"""An initialisation with which queries attend to nearby tokens from the first step.

A CMT with random weights attends everywhere: its position embeddings hardly distinguish places, and
it must learn where to look before it can learn what is there. The released models had 20 epochs of
nuScenes for this; a tiny model on a CPU has minutes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .decoder import CmtTransformer


class Position(NamedTuple):
    """One kind of position: cells of the BEV map, or rays of pixels."""

    embedding: nn.Sequential
    """network from a position's code to its embedding (C,), with a linear layer last"""
    codes: Tensor
    """(N, code), codes of random positions from the whole range"""
    spread: float
    """desired standard deviation of the embeddings of different positions"""


@torch.no_grad()
def init_local_attention(
    transformer: CmtTransformer, positions: Sequence[Position], *, split_heads: bool = True
) -> None:
    """Initialise every cross-attention to be local.

    Each kind of position gets its own channels of the embedding. Keys are projected as queries are,
    so that a query and a token at the same place agree. The projections of self-attention shrink by
    the factor by which the embeddings grow.

    Args:
        transformer: the decoder.
        positions: the kinds of positions; their number must divide the number of channels.
        split_heads: whether each kind has heads of its own, which read only its channels. Without,
            every head reads all channels and weighs the sensors against each other, so that a
            router can shift the balance.
    """
    for kind, position in enumerate(positions):
        last = position.embedding[-1]
        elsewhere = torch.ones(len(last.bias), dtype=torch.bool)
        elsewhere.unflatten(0, (len(positions), -1))[kind] = False
        last.weight[elsewhere] = 0
        last.bias[elsewhere] = 0
        outputs = position.embedding(position.codes)[:, ~elsewhere]
        scale = position.spread / outputs.std(dim=0).mean()
        last.weight.mul_(scale)
        last.bias[~elsewhere] = (last.bias[~elsewhere] - outputs.mean(dim=0)) * scale

    # Queries start as zeros. Without this, the first norm divides by almost nothing, and its
    # gradient, a hundred times that of all others, sets how much the first steps are clipped.
    nn.init.normal_(transformer.layers[0].attentions[0].attn.out_proj.bias)
    mean_spread = sum(position.spread for position in positions) / len(positions)
    for layer in transformer.layers:
        self_attention, cross_attention = (block.attn for block in layer.attentions)
        query, key, _ = self_attention.in_proj_weight.chunk(3)
        query.div_(mean_spread)
        key.div_(mean_spread)
        query, key, _ = cross_attention.in_proj_weight.chunk(3)
        if split_heads:
            blocks = [torch.ones(len(query) // len(positions), len(query) // len(positions))]
            query.mul_(torch.block_diag(*blocks * len(positions)))
        key.copy_(query)
