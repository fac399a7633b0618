"""The decoder and its attention; imports with torch alone."""

from .attention import CrossAttention, MultiheadAttention
from .attention_bias import AttentionBias, AttentionGate, AttentionMix, Routing, WindowBias
from .decoder import CmtTransformer, DecoderLayer
from .local_start import Position, start_local
from .position import ray_code, sine_embedding
from .token_groups import TokenGroups

__all__ = [
    'AttentionBias',
    'AttentionGate',
    'AttentionMix',
    'CmtTransformer',
    'CrossAttention',
    'DecoderLayer',
    'MultiheadAttention',
    'Position',
    'Routing',
    'TokenGroups',
    'WindowBias',
    'ray_code',
    'sine_embedding',
    'start_local',
]
