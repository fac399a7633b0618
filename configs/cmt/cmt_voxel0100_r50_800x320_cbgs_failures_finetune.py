"""A trained CMT fine-tuned under sensor failures by the recipe `frozen`, without a router.

The control of `configs/cmt_aqr/cmt_aqr_voxel0100_r50_800x320_cbgs_failures.py`. Failures damage
the data as they are loaded, before augmentation. They replace masked-modal training, which could
remove the sensor that a failure has left. No objects are pasted, as in all fine-tuning: they would
appear intact in a cloud that has lost its beams, and in black images.

Give the trained CMT as `load_from`: the run refuses to start from random frozen weights.
"""

_base_ = ['./cmt_voxel0100_r50_800x320_cbgs_finetune.py', '../_base_/failures.py']

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
