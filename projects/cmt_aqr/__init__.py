"""Cross Modal Transformer with an Adaptive Query Router, as an MMDetection3D plugin.

``custom_imports = dict(imports=['projects.cmt_aqr'])`` in a config registers every module. Where
MMDetection3D is not installed, ``geometry`` and ``transformer`` still import with torch alone.
"""

from importlib.util import find_spec

if find_spec('mmdet3d') is not None:
    from . import compat  # noqa: F401 I001  (patches must be in place before anything else runs)
    from . import (  # noqa: F401
        backbones,
        data_preprocessor,
        datasets,
        detector,
        evaluation,
        grid_mask,
        head,
        hooks,
        matching,
        necks,
        pretraining,
    )
