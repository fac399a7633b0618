"""Cross Modal Transformer with an Adaptive Query Router, as an MMDetection3D plugin.

``custom_imports = dict(imports=['projects.cmt_aqr'])`` in a config registers every module. Where
MMDetection3D is not installed, ``geometry``, ``voxelize``, ``transformer`` and ``aqr`` still import
with torch alone.
"""

from importlib.util import find_spec

if find_spec('mmdet3d') is not None:
    from . import compat  # noqa: F401 I001  (patches must be in place before anything else runs)
    from . import (  # noqa: F401
        aqr,
        backbones,
        data_preprocessor,
        datasets,
        detector,
        evaluation,
        feature_cache,
        freezing,
        grid_mask,
        head,
        hooks,
        matching,
        necks,
        precision,
        pretraining,
    )

    from mmdet3d.registry import MODELS

    for router_part in (aqr.AQRWeightGenerator, aqr.AttentionBiasGenerator):
        MODELS.register_module(module=router_part)
