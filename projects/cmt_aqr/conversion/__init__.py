"""Conversion of published checkpoints to the models of this project."""

from .convert import Conversion, convert, write_checkpoint
from .layouts import Layout
from .source import ConversionError, Source, read_source

__all__ = [
    'Conversion',
    'ConversionError',
    'Layout',
    'Source',
    'convert',
    'read_source',
    'write_checkpoint',
]
