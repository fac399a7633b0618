"""Features of frozen backbones, computed once and read from disk after.

A config has them by one setting, ``feature_cache=dict(directory=...)``, and
:func:`use_feature_cache` makes of it: in each pipeline a :class:`CachedFeatures` for each branch,
which looks a sample up before anything is loaded; and a :class:`FeatureCacheHook`, which gives the
model a :class:`FeatureCache` and tells the pipelines which weights it has. Then:

1. the transform finds an entry in the :class:`FeatureStore` and verifies it, or loads the sample as
   ever, and notes either as a :class:`Lookup`;
2. the preprocessor puts the inputs of what was loaded into the batch, with all lookups;
3. the detector runs the frozen stages for these, reads the others, and writes what is new.
"""

from .cache import FeatureCache, FixedPart
from .hook import FeatureCacheHook
from .lookup import Lookup, lookups_of
from .settings import use_feature_cache
from .store import FeatureStore
from .transform import CachedFeatures

__all__ = [
    'CachedFeatures',
    'FeatureCache',
    'FeatureCacheHook',
    'FeatureStore',
    'FixedPart',
    'Lookup',
    'lookups_of',
    'use_feature_cache',
]
