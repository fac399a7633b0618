"""Cross Modal Transformer with an Adaptive Query Router, as an MMDetection3D plugin.

``custom_imports = dict(imports=['projects.cmt_aqr'])`` in a config registers every module. Without
MMDetection3D ``geometry``, ``voxelize``, ``transformer``, ``aqr`` and ``doctor`` still import: they
need torch alone.
"""

from . import compat  # its patches must be in place before anything else is imported

if compat.is_installed('mmdet3d'):
    from mmdet3d.registry import MODELS

    from . import (  # noqa: F401
        aqr,
        backbones,
        data_preprocessor,
        datasets,
        detector,
        evaluation,
        experts,
        feature_cache,
        freezing,
        grid_mask,
        head,
        health,
        hooks,
        layer_trials,
        matching,
        necks,
        planning,
        precision,
        pretraining,
    )
    from .aqr import ablations  # noqa: F401
    from .transformer import BiasRouting, GateRouting, MixRouting

    for router_part in (aqr.AQRWeightGenerator, BiasRouting, GateRouting, MixRouting):
        MODELS.register_module(module=router_part)
