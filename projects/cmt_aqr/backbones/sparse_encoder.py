"""MMDetection3D's sparse encoder with a single neighbour search per resolution."""

from mmdet3d.models import SparseEncoder
from mmdet3d.models.layers.spconv import IS_SPCONV2_AVAILABLE
from mmdet3d.registry import MODELS

if IS_SPCONV2_AVAILABLE:
    from spconv.pytorch import SubMConv3d
else:
    from mmcv.ops import SubMConv3d


@MODELS.register_module()
class CmtSparseEncoder(SparseEncoder):
    """``SparseEncoder`` whose submanifold convolutions of one stage share their index pairs.

    In the residual blocks of ``SparseEncoder``, each convolution searches the neighbours of the
    same voxels again. The pairs depend only on voxels and kernel size, so one search per stage
    gives the same result. Arguments, parameters and outputs are those of the parent.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # The first stage has the voxels of the input convolution.
        first_key = next(
            m.indice_key for m in self.conv_input.modules() if isinstance(m, SubMConv3d)
        )
        for index, stage in enumerate(self.encoder_layers):
            key = f'{first_key}_stage{index}' if index else first_key
            for module in stage.modules():
                if isinstance(module, SubMConv3d) and module.indice_key is None:
                    module.indice_key = key
