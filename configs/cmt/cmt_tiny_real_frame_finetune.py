"""The tiny CMT of one real keyframe, fine-tuned by the recipe `frozen`, without a router.

Whole sensors are dropped, which that CMT never saw: the decoder has 300 steps to learn the frame
without one of them.
"""

_base_ = ['./cmt_tiny_real_frame.py', '../_base_/recipes.py']

model = _base_.recipes.frozen.model

drop_sensors = [
    dict(type='DrawIndex', by_epoch=False),
    dict(
        type='RandomFailure',
        prob=0.5,
        failures=[dict(type='LidarDrop'), dict(type='CameraDrop')],
    ),
]
train_pipeline = [*drop_sensors, *_base_.train_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_iters = 300
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(_delete_=True, **_base_.recipes.frozen.optim_wrapper.paramwise_cfg),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(_base_.param_scheduler[1], T_max=max_iters),
]
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(checkpoint=dict(interval=max_iters))

load_from = 'work_dirs/cmt_tiny_real_frame/iter_1000.pth'
