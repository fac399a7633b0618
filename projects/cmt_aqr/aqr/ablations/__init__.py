"""Published alternatives to the router, for comparison; a config selects one by its ``type``."""

from .feature_modulation import FeatureModulationRouter
from .hard_choice import ExpertLogits, HardChoiceRouter, HardChoiceRouting

__all__ = ['ExpertLogits', 'FeatureModulationRouter', 'HardChoiceRouter', 'HardChoiceRouting']
