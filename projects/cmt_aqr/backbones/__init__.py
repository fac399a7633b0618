"""Backbones of CMT that MMDetection and MMDetection3D do not have, or not as fast."""

from .sparse_encoder import CmtSparseEncoder
from .vovnet import VoVNet

__all__ = ['CmtSparseEncoder', 'VoVNet']
