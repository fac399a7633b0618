"""`cmt_tiny_streets_failures.py` for one failure alone: every camera is black."""

_base_ = '../../../configs/cmt/cmt_tiny_streets_failures.py'

random_failure = dict(_base_.random_failure, prob=1.0, failures=[dict(type='CameraDrop')])
train_pipeline = [_base_.draw_index, random_failure, *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

load_from = 'projects/cmt_aqr/weights/cmt_tiny_streets_failures.pth'
