"""`cmt_tiny_streets_failures.py` for as many steps again: the control of the specialists."""

_base_ = '../../../configs/cmt/cmt_tiny_streets_failures.py'

load_from = 'projects/cmt_aqr/weights/cmt_tiny_streets_failures.pth'
