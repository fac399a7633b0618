"""An expert on a trained CMT: every sample draws a failure of cameras, and the head alone trains.

Give the trained CMT as `load_from`; `cmt_voxel0100_r50_800x320_cbgs_experts.py` uses the expert.
"""

_base_ = './cmt_voxel0100_r50_800x320_cbgs_failures_finetune.py'

model = _base_.recipes.fixed_features.model

random_failure = dict(
    _base_.only_cameras_fail,
    failures=[*_base_.only_cameras_fail.failures, *_base_.stale_frames],
)
train_pipeline = [_base_.draw_failures[0], random_failure, *_base_.train_pipeline[2:]]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
