"""`cmt_tiny_streets.py` by the released masked-modal training: no sensor is decoded alone."""

_base_ = './cmt_tiny_streets.py'

model = dict(pts_bbox_head=dict(all_combinations=False))
drop_sensors = [_base_.drop_sensors[0], dict(_base_.drop_sensors[1], prob=0.6)]
train_pipeline = [*drop_sensors, *_base_.train_pipeline[len(drop_sensors) :]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
