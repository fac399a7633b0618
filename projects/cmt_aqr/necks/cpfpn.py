"""CPFPN, the feature pyramid of PETR and CMT: only its first level has an output convolution."""

from __future__ import annotations

from mmdet.models.necks import FPN
from mmdet3d.registry import MODELS
from torch import nn


@MODELS.register_module()
class CPFPN(FPN):
    """mmdet's FPN without the output convolutions of its coarser levels.

    PETR ("Position Embedding Transformation for Multi-View 3D Object Detection", Liu et al., ECCV
    2022) uses only the finest map. The 3 x 3 convolutions of the other levels would get no
    gradient, which breaks distributed training. Coarser levels return their lateral maps.
    Arguments, inputs and outputs are those of `mmdet.models.necks.FPN`.

    Raises:
        ValueError: `add_extra_convs` is set, whose convolutions would get no gradient either.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.add_extra_convs:
            raise ValueError(
                f'CPFPN add_extra_convs {self.add_extra_convs!r}: its coarser levels have no '
                'convolutions; leave it False (extra levels are then pooled) or use mmdet.FPN'
            )
        for level in range(1, len(self.fpn_convs)):
            self.fpn_convs[level] = nn.Identity()
