"""Objects of other samples, pasted into the points and the images of a sample together."""

from .database import ObjectDatabase
from .sampler import JointDataBaseSampler
from .transform import JointObjectSample

__all__ = ['JointDataBaseSampler', 'JointObjectSample', 'ObjectDatabase']
