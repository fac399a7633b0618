"""`cmt_tiny_streets_frozen.py` trained on by the released masked-modal training.

It learns what an empty cloud and black images are, which decoding each sensor alone does not show.
"""

_base_ = './cmt_tiny_streets_frozen.py'

model = dict(pts_bbox_head=dict(all_combinations=False))
draw_index, random_failure = _base_.drop_sensors
train_pipeline = [
    dict(draw_index, variants=4),
    dict(random_failure, prob=0.6),
    *_base_.train_pipeline,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

optim_wrapper = dict(optimizer=dict(lr=7e-4))

load_from = 'work_dirs/cmt_tiny_streets_frozen/epoch_8.pth'
