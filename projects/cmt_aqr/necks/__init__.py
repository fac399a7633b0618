"""Necks of CMT that mmdet lacks."""

from .cpfpn import CPFPN

__all__ = ['CPFPN']
