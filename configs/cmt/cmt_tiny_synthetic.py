"""A tiny CMT on the synthetic nuScenes database; trains on a CPU."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic.py',
    '../_base_/schedules/tiny.py',
]
