"""`cmt_tiny_streets_failures.py` for an expert: every sample draws a failure of the cameras."""

_base_ = './cmt_tiny_streets_failures.py'

random_failure = dict(
    _base_.only_cameras_fail,
    failures=[*_base_.only_cameras_fail.failures, *_base_.stale_frames],
)
train_pipeline = [_base_.draw_index, random_failure, *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
