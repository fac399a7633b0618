"""A planner on the frozen tiny CMT for the streets; half of its samples lose a sensor.

`python -m benchmarks.planning.train_on_states` trains it in minutes; see docs/planning.md.
"""

_base_ = './cmt_tiny_streets_frozen.py'

model = dict(
    pts_bbox_head=dict(all_combinations=False, **_base_.frozen_detector['pts_bbox_head']),
    planner=dict(
        type='ActionQueryHead',
        num_queries=8,
        num_heads=4,
        feedforward_channels=256,
        reads='objects',
        use_status=True,
    ),
)

data_command = _base_.data_command + ' --with-ego-future'
draw_index, random_failure = _base_.drop_sensors
pack_ego = dict(type='PackEgoFuture')
train_pipeline = [
    dict(draw_index, variants=1),
    dict(random_failure, prob=0.5),
    *_base_.train_pipeline[:-1],
    dict(_base_.pack_train, **pack_ego),
]
test_pipeline = [*_base_.test_pipeline[:-1], dict(_base_.test_pipeline[-1], **pack_ego)]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='PlanMetric')]
test_evaluator = val_evaluator

max_epochs = 6
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=50),
    dict(_base_.param_scheduler[1], T_max=max_epochs),
]
# Scored by tools/test.py.
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1, val_interval=1)

load_from = 'projects/cmt_aqr/weights/cmt_tiny_streets_failures.pth'
