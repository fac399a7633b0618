"""A tiny CMT that learns one real keyframe by heart, in minutes on a CPU.

It shows that real files, calibration and boxes go through training and the official score.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/models/cmt_tiny.py',
    '../_base_/datasets/real_frame.py',
]

point_cloud_range = _base_.box_range
norm_cfg = dict(momentum=0.1)
model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(
            voxel_size=[0.225, 0.225, 0.4],
            point_cloud_range=point_cloud_range,
            max_voxels=(30000, 30000),
        )
    ),
    grid_mask=None,
    pts_middle_encoder=dict(sparse_shape=[21, 480, 480]),
    pts_bbox_head=dict(
        point_cloud_range=point_cloud_range,
        num_query=300,
        box_coder=dict(post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], max_num=300),
    ),
)

fit_images = dict(type='ResizeCropFlipImage', final_dim=(160, 400), training=False)
train_pipeline = [
    fit_images if transform.type == fit_images['type'] else transform
    for transform in _base_.train_pipeline
]
test_pipeline = [
    fit_images if transform.type == fit_images['type'] else transform
    for transform in _base_.test_pipeline
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

max_iters = 600
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters, eta_min_ratio=0.01),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
default_hooks = dict(
    logger=dict(interval=20),
    checkpoint=dict(by_epoch=False, interval=max_iters, max_keep_ckpts=1),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
