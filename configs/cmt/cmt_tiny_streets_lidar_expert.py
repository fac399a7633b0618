"""`cmt_tiny_streets_failures.py` for an expert: the LiDAR alone fails, in every sample."""

_base_ = './cmt_tiny_streets_failures.py'

random_failure = dict(
    _base_.random_failure,
    prob=1.0,
    failures=[*[dict(type='LidarDrop')] * 4, *_base_.parts_of_lidar],
)
train_pipeline = [_base_.draw_index, random_failure, *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
