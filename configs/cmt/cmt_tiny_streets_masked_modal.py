"""`cmt_tiny_streets_frozen.py` by the released masked-modal training: no sensor is decoded alone.

A step decodes once instead of three times, so more of them take the same time.
"""

_base_ = './cmt_tiny_streets_frozen.py'

model = dict(pts_bbox_head=dict(all_combinations=False))
draw_index, random_failure = _base_.drop_sensors
train_pipeline = [
    dict(draw_index, variants=4),
    dict(random_failure, prob=0.6),
    *_base_.train_pipeline,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 19
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=max_epochs)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
