"""Objects of other samples, pasted into the points and the images of a sample together."""

from .database import add_patches
from .sampler import JointDataBaseSampler
from .transform import JointObjectSample

__all__ = ['JointDataBaseSampler', 'JointObjectSample', 'add_patches']
