"""A planner on the frozen tiny CMT that was fine-tuned under sensor failures.

It trains under the same failures.
"""

_base_ = ['./cmt_tiny_synthetic_failures_finetune.py', '../_base_/planner.py']

model = dict(
    **_base_.frozen_detector,
    planner=dict(_base_.planner, num_queries=8, num_heads=4, feedforward_channels=256),
)

data_command = _base_.data_command + ' --with-ego-future'
pack_ego = dict(type='PackEgoFuture')
train_pipeline = [*_base_.train_pipeline[:-1], dict(_base_.pack_train, **pack_ego)]
test_pipeline = [*_base_.test_pipeline[:-1], dict(_base_.test_pipeline[-1], **pack_ego)]
train_dataloader = dict(batch_size=16, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='PlanMetric')]
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-3))

load_from = 'projects/cmt_aqr/weights/cmt_tiny_synthetic_failures.pth'
