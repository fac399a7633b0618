"""The decoder and its attention; imports with torch alone."""

from .attention import MultiheadAttention
from .decoder import CmtTransformer, DecoderLayer
from .position import ray_code, sine_embedding

__all__ = [
    'CmtTransformer',
    'DecoderLayer',
    'MultiheadAttention',
    'ray_code',
    'sine_embedding',
]
