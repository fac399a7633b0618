"""A planner on a frozen CMT with a router, with ResNet-50 at 800 x 320.

Give the trained detector as `load_from`; the run refuses to start from random frozen weights.
Scenes and images are not augmented, and failures come in two variants of each sample, so that
features of the frozen backbones can be cached.
"""

_base_ = ['./cmt_aqr_voxel0100_r50_800x320_cbgs_failures.py', '../_base_/planner.py']

model = dict(**_base_.frozen_detector, planner=_base_.planner)

data_command = _base_.data_command.replace('--with-database', '--with-ego-future')
*load_inputs, _ = _base_.test_pipeline
pack_ego = dict(_base_.pack_test, type='PackEgoFuture')
train_pipeline = [
    dict(_base_.draw_failures[0], variants=2),
    *_base_.draw_failures[1:],
    *load_inputs,
    pack_ego,
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        _delete_=True,
        ann_file='nuscenes_infos_train.pkl',
        pipeline=train_pipeline,
        **_base_.dataset,
    ),
)
auto_scale_lr = dict(base_batch_size=64)
val_dataloader = dict(dataset=dict(pipeline=[*load_inputs, pack_ego]))
test_dataloader = val_dataloader
val_evaluator = [_base_.val_evaluator, dict(type='PlanMetric')]
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-3))
