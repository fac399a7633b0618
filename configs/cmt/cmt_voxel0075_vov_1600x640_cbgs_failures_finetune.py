"""A trained CMT fine-tuned under sensor failures by the recipe `frozen`, without a router.

The control of `configs/cmt_aqr/cmt_aqr_voxel0075_vov_1600x640_cbgs_failures.py`. The failures are
those of `cmt_voxel0100_r50_800x320_cbgs_failures_finetune.py`, which gives the reasons.

Give the trained CMT as `load_from`: the run refuses to start from random frozen weights.
"""

_base_ = ['./cmt_voxel0075_vov_1600x640_cbgs_finetune.py', '../_base_/failures.py']

*steps, _ = _base_.train_pipeline[len(_base_.drop_sensors) :]
train_infos = _base_.data_root + 'nuscenes_infos_train.pkl'
stale_frames = [dict(failure, ann_file=train_infos) for failure in _base_.stale_frames]
random_failure = dict(
    _base_.random_failure,
    # What only a comparison of two sensors shows is trained with as well.
    failures=[*_base_.random_failure.failures, *_base_.misalignment, *stale_frames],
)
train_pipeline = [_base_.draw_failures[0], random_failure, *steps, _base_.pack_health]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
