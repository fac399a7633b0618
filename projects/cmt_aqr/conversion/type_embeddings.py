"""Folding of the type embeddings of MoME's queries into the biases of attention.

MoME's joint expert adds a constant c to the position embedding of every query. The embedding enters
attention only through ``W_q (query + position) + b_q``, and in self-attention also through the
corresponding projection of the keys, so replacing ``b`` by ``b + W c`` has exactly the same effect.
Without it the decoder would receive queries that it was not trained on.

Shapes: C channels.
"""

from collections.abc import MutableMapping, Sequence

from torch import Tensor

from .layouts import WEIGHT_GENERATOR

_BIAS = 'in_proj_bias'
_DECODER = 'pts_bbox_head.transformer.decoder.'
_SELF_ATTENTION = '.attentions.0.'


def fold_type_embeddings(state: MutableMapping[str, Tensor], embeddings: Sequence[Tensor]) -> None:
    """Add the embeddings to the biases of all attention layers of the decoder and the router.

    Args:
        state: tensors by name in the model, changed in place.
        embeddings: type embeddings to be added to each query, each (C,).
    """
    constant = sum(embedding.double() for embedding in embeddings)
    for name in list(state):
        if not name.endswith(_BIAS) or not name.startswith((_DECODER, WEIGHT_GENERATOR)):
            continue
        bias = state[name].double()
        weight = state[name.removesuffix(_BIAS) + 'in_proj_weight'].double()
        # The rows are those of query, key and value. In self-attention keys are queries as well.
        rows = len(constant) * (2 if _SELF_ATTENTION in name else 1)
        bias[:rows] += weight[:rows] @ constant
        state[name] = bias.float()
