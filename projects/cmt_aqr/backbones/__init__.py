"""Image backbones of CMT that mmdet does not have."""

from .vovnet import VoVNet

__all__ = ['VoVNet']
