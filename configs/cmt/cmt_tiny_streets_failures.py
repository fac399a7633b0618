"""The tiny CMT for the streets, its decoder and task heads fine-tuned under sensor failures.

The control of a router and of experts: the same data and steps. Failures come in two variants of
each sample, so that features of the frozen branches can be cached.
"""

_base_ = ['./cmt_tiny_streets_frozen.py', '../_base_/failures.py']

model = dict(pts_bbox_head=dict(all_combinations=False))
train_infos = _base_.data_root + 'nuscenes_infos_train.pkl'
stale_frames = [dict(failure, ann_file=train_infos) for failure in _base_.stale_frames]
draw_index = dict(type='DrawIndex', variants=2)
random_failure = dict(
    _base_.random_failure,
    # What only a comparison of two sensors shows is trained with as well.
    failures=[*_base_.random_failure.failures, *_base_.misalignment, *stale_frames],
)
train_pipeline = [draw_index, random_failure, *_base_.train_pipeline]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))

max_epochs = 3
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(_base_.param_scheduler[0], end=50),
    dict(_base_.param_scheduler[1], T_max=max_epochs),
]
# Scored under failures by tools/test_robustness.py.
train_cfg = dict(max_epochs=max_epochs, val_begin=max_epochs + 1, val_interval=1)

load_from = 'projects/cmt_aqr/weights/cmt_tiny_streets.pth'
