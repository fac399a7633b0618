"""The decoder and its attention; imports with torch alone."""

from .attention import CrossAttention, MultiheadAttention
from .attention_bias import AttentionBias, WindowBias
from .decoder import CmtTransformer, DecoderLayer
from .local_start import Position, start_local
from .position import ray_code, sine_embedding

__all__ = [
    'AttentionBias',
    'CmtTransformer',
    'CrossAttention',
    'DecoderLayer',
    'MultiheadAttention',
    'Position',
    'WindowBias',
    'ray_code',
    'sine_embedding',
    'start_local',
]
