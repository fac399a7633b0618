"""`cmt_tiny_streets_failures.py` for an expert: every sample draws a failure of the LiDAR."""

_base_ = './cmt_tiny_streets_failures.py'

train_pipeline = [_base_.draw_index, _base_.only_lidar_fails, *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
