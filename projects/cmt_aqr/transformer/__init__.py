"""The decoder and its attention; imports with torch alone."""

from .attention import MultiheadAttention
from .decoder import CmtTransformer, DecoderLayer
from .local_start import Position, start_local
from .position import ray_code, sine_embedding

__all__ = [
    'CmtTransformer',
    'DecoderLayer',
    'MultiheadAttention',
    'Position',
    'ray_code',
    'sine_embedding',
    'start_local',
]
