"""A health monitor beside a trained CMT with VoVNet-99, of which nothing trains.

Every frame once for an epoch, without balancing of classes and without augmentation. Give the
trained CMT as `load_from`: the run refuses to start from random frozen weights.
"""

_base_ = ['./cmt_voxel0075_vov_1600x640_cbgs.py', '../_base_/health.py']

model = dict(
    fast_path={},
    grid_mask=None,
    health_monitor=dict(_base_.health_monitor, image_cell=8, range_image=dict(columns=1080)),
    **_base_.frozen_detector,
)

train_infos = _base_.data_root + 'nuscenes_infos_train.pkl'
stale_cameras = [dict(failure, ann_file=train_infos) for failure in _base_.stale_cameras]
load_inputs = [*_base_.load_latest_points, *_base_.load_images, _base_.filter_points]
pack = dict(_base_.pack_health, keys=['points', 'img'])
train_pipeline = [
    dict(type='DrawIndex'),
    _base_.lidar_fails,
    dict(_base_.cameras_fail, failures=[*_base_.cameras_fail.failures, *stale_cameras]),
    *load_inputs,
    _base_.fit_images,
    pack,
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        ann_file='nuscenes_infos_train.pkl',
        pipeline=train_pipeline,
        filter_empty_gt=False,
        **_base_.dataset,
    )
)
test_pipeline = [*load_inputs, _base_.fit_images, pack]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = [_base_.test_evaluator, dict(type='HealthMetric')]

optim_wrapper = dict(
    optimizer=_base_.health_optimizer, paramwise_cfg=dict(_delete_=True, custom_keys={})
)
max_epochs = _base_.health_epochs
param_scheduler = [
    _base_.health_schedule[0],
    dict(_base_.health_schedule[1], T_max=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
val_dataloader = val_evaluator = val_cfg = None  # scored by tools/test_robustness.py
