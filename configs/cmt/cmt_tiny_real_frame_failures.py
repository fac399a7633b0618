"""The shipped tiny CMT of the real keyframe: from the synthetic weights, under sensor failures.

The frame is learned by heart, whole and damaged. Norms keep the statistics of the synthetic data:
those of damaged inputs would not suit intact ones.
"""

_base_ = ['./cmt_tiny_real_frame.py', '../_base_/failures.py', '../_base_/recipes.py']

model = _base_.recipes.full_rate.model

draw_failures = [dict(type='DrawIndex', by_epoch=False), _base_.random_failure]
train_pipeline = [*draw_failures, *_base_.train_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_iters = 400
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], T_max=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))

load_from = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
