"""The decoder and its attention; imports with torch alone."""

from .attention import CrossAttention, MultiheadAttention
from .decoder import CmtTransformer, DecoderLayer, DecoderStates
from .init_local_attention import Position, init_local_attention
from .position import position_mlp, ray_code, sine_embedding
from .routing import BiasRouting, GateRouting, MixRouting, Routing, RoutingForm
from .token_groups import TokenGroups

__all__ = [
    'BiasRouting',
    'CmtTransformer',
    'CrossAttention',
    'DecoderLayer',
    'DecoderStates',
    'GateRouting',
    'MixRouting',
    'MultiheadAttention',
    'Position',
    'Routing',
    'RoutingForm',
    'TokenGroups',
    'init_local_attention',
    'position_mlp',
    'ray_code',
    'sine_embedding',
]
