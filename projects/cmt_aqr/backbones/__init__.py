"""Backbones of CMT that MMDetection and MMDetection3D lack or run more slowly."""

from .sparse_encoder import CmtSparseEncoder
from .vovnet import VoVNet

__all__ = ['CmtSparseEncoder', 'VoVNet']
