"""Published alternatives to the router, to compare with; a config names them by ``type``."""

from .feature_modulation import FeatureModulationRouter
from .hard_choice import ExpertLogits, HardChoiceRouter, HardChoiceRouting

__all__ = ['ExpertLogits', 'FeatureModulationRouter', 'HardChoiceRouter', 'HardChoiceRouting']
