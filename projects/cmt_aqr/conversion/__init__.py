"""Conversion of published checkpoints to the models of this project."""

from .checkpoint import write_checkpoint
from .convert import Conversion, convert
from .errors import ConversionError
from .layouts import Layout
from .source import Source, read_source

__all__ = [
    'Conversion',
    'ConversionError',
    'Layout',
    'Source',
    'convert',
    'read_source',
    'write_checkpoint',
]
