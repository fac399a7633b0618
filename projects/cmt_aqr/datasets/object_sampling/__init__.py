"""Pasting of objects of other samples into points and images together."""

from .database import ObjectDatabase
from .sampler import JointDataBaseSampler
from .transform import JointObjectSample

__all__ = ['JointDataBaseSampler', 'JointObjectSample', 'ObjectDatabase']
