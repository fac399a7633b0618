"""A health monitor beside the tiny CMT for the streets, of which nothing trains."""

_base_ = ['./cmt_tiny_streets.py', '../_base_/health.py']

model = dict(fast_path={}, health_monitor=_base_.health_monitor, **_base_.frozen_detector)

*load_inputs, fit_images, _ = _base_.test_pipeline
pack = dict(_base_.pack_health, keys=['points', 'img'])
train_infos = _base_.data_root + 'nuscenes_infos_train.pkl'
stale_cameras = [dict(failure, ann_file=train_infos) for failure in _base_.stale_cameras]
train_pipeline = [
    dict(type='DrawIndex', variants=6),
    _base_.lidar_fails,
    dict(_base_.cameras_fail, failures=[*_base_.cameras_fail.failures, *stale_cameras]),
    *load_inputs,
    fit_images,
    pack,
]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, filter_empty_gt=False))
test_pipeline = [*load_inputs, fit_images, pack]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_evaluator = [_base_.test_evaluator, dict(type='HealthMetric')]

max_epochs = 18
optim_wrapper = dict(optimizer=dict(lr=3e-3), paramwise_cfg=None)
param_scheduler = [
    dict(_base_.param_scheduler[0], start_factor=0.1, end=50),
    dict(_base_.param_scheduler[1], T_max=max_epochs, eta_min_ratio=1e-3),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
val_dataloader = val_evaluator = val_cfg = None  # scored by tools/test_robustness.py

feature_cache = dict(directory='work_dirs/features', max_gigabytes=20)
load_from = 'projects/cmt_aqr/weights/cmt_tiny_streets.pth'
