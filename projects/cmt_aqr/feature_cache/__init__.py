"""Features of frozen backbones, computed once and then read in place of points and images.

``feature_cache=dict(directory=...)`` in a config, see :func:`use_feature_cache`, replaces the
transforms that load a branch's input with :class:`LoadCachedFeatures` and adds a
:class:`FeatureCacheHook`. The cache is used in two steps:

1. :func:`fill`, through ``tools/cache_features.py``, writes the feature maps that a dataset needs
   into the :class:`FeatureStore`; a test does so itself before it starts;
2. the transform reads them, the preprocessor stacks them, and the detector runs the rest of each
   branch. A missing entry is an error.

An entry belongs to a sample, its failures, the transforms that load it, and the weights of the
modules that computed it; a change of any of these gives another file name.
"""

from .filling import fill
from .hook import FeatureCacheHook
from .settings import use_feature_cache
from .store import FeatureStore
from .transform import LoadCachedFeatures, PackWithFeatures

__all__ = [
    'FeatureCacheHook',
    'FeatureStore',
    'LoadCachedFeatures',
    'PackWithFeatures',
    'fill',
    'use_feature_cache',
]
