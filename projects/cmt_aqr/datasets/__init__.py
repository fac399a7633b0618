"""Datasets and transforms; importing the package registers them."""

from . import failures, object_sampling, transforms
from .cmt_dataset import CmtDataset
from .skip_unreadable import SkipUnreadable

__all__ = ['CmtDataset', 'SkipUnreadable', 'failures', 'object_sampling', 'transforms']
