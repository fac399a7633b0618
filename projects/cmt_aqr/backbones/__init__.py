"""Backbones that MMDetection and MMDetection3D lack or run more slowly."""

from .dual_encoder import DualEncoder
from .sparse_encoder import CmtSparseEncoder
from .vision_encoder import VisionEncoder
from .vovnet import VoVNet

__all__ = ['CmtSparseEncoder', 'DualEncoder', 'VisionEncoder', 'VoVNet']
