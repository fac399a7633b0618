"""Hooks for mmengine's Runner."""

from .bias_scale_hook import BiasScaleHook
from .choice_log_hook import ChoiceLogHook
from .data_fit_hook import DataFitHook
from .draw_index_hook import DrawIndexHook
from .epoch_seed_hook import EpochSeedHook
from .finite_gradient_hook import FiniteGradientHook
from .finite_loss_hook import FiniteLossHook
from .routing_log_hook import RoutingLogHook
from .run_info_hook import RunInfoHook
from .score_names_hook import ScoreNamesHook
from .stop_object_sample_hook import StopObjectSampleHook
from .visualization_hook import FedVisualizationHook

__all__ = [
    'BiasScaleHook',
    'ChoiceLogHook',
    'DataFitHook',
    'DrawIndexHook',
    'EpochSeedHook',
    'FedVisualizationHook',
    'FiniteGradientHook',
    'FiniteLossHook',
    'RoutingLogHook',
    'RunInfoHook',
    'ScoreNamesHook',
    'StopObjectSampleHook',
]
