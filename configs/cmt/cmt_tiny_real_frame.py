"""A tiny CMT that learns one real keyframe by heart, on a CPU in minutes."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/cmt_tiny.py',
    '../_base_/datasets/real_frame.py',
]
