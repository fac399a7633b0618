"""Necks of CMT that mmdet does not have."""

from .cpfpn import CPFPN

__all__ = ['CPFPN']
