"""A tiny CMT overfitted to one real keyframe, on a CPU in minutes.

Without augmentation or failing sensors: it shows that the chain from real files to the official
score is complete. `mAP_present` is the mean AP over the classes with a scored box in the frame.
"""

_base_ = './cmt_tiny_synthetic.py'

data_root = 'data/real_frame/'
data_command = 'python tools/make_frame_tables.py ../shared/nuscenes_frame --out data/real_frame'
point_cloud_range = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
post_center_range = [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]
voxel_size = [0.225, 0.225, 0.4]
image_size = (160, 400)
pack_health = dict(point_cloud_range=point_cloud_range, voxel_size=voxel_size)

filter_points = dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range)
fit_images = dict(type='ResizeCropFlipImage', final_dim=image_size, training=False)
train_pipeline = [
    *_base_.load_inputs,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    filter_points,
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    fit_images,
    _base_.train_pipeline[-1],
]
test_pipeline = [
    *_base_.test_pipeline[: len(_base_.load_inputs)],
    filter_points,
    fit_images,
    _base_.test_pipeline[-1],
]
train_dataloader = dict(
    batch_size=1,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader

# One frame gives the same batch statistics in every step: running ones can follow quickly.
norm_cfg = dict(eps=0.001, momentum=0.1)
model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(
            point_cloud_range=point_cloud_range, voxel_size=voxel_size, max_voxels=(20000, 20000)
        )
    ),
    pts_middle_encoder=dict(norm_cfg=dict(type='BN1d', **norm_cfg)),
    pts_backbone=dict(norm_cfg=norm_cfg),
    pts_neck=dict(norm_cfg=norm_cfg),
    pts_bbox_head=dict(
        num_query=300,
        wavelengths=(2.0, 1 / 30),
        box_coder=dict(post_center_range=post_center_range, max_num=300),
    ),
)

max_iters = 1000
optim_wrapper = dict(paramwise_cfg=None)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, T_max=max_iters, eta_min_ratio=0.01),
]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
)
default_hooks = dict(
    logger=dict(interval=25),
    checkpoint=dict(by_epoch=False, interval=max_iters),
)
log_processor = dict(by_epoch=False)
