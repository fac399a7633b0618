"""Checkpoints of other projects, brought to the names and layouts of a model of this one."""

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
