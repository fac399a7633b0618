"""A tiny CMT that learns one real keyframe by heart, on a CPU in minutes.

No augmentation and no dropped sensor: it shows that the chain from real files to the official score
is whole. `mAP_present` is the mean AP of the classes that have a scored box in the frame.
"""

_base_ = './cmt_tiny_synthetic.py'

data_root = 'data/real_frame/'
data_command = 'python tools/make_frame_tables.py ../shared/nuscenes_frame --out data/real_frame'
point_cloud_range = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
voxel_size = [0.225, 0.225, 0.4]
image_size = (160, 400)
pack_health = dict(point_cloud_range=point_cloud_range, voxel_size=voxel_size)

train_pipeline = [
    *_base_.load_inputs,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    dict(type='ResizeCropFlipImage', final_dim=image_size, training=False),
    _base_.train_pipeline[-1],
]
test_pipeline = [
    *_base_.test_pipeline[: len(_base_.load_inputs)],
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ResizeCropFlipImage', final_dim=image_size, training=False),
    _base_.test_pipeline[-1],
]
train_dataloader = dict(
    batch_size=1,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(data_root=data_root, pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    type='PresentClassesMetric',
    data_root=data_root,
    ann_file=data_root + 'nuscenes_infos_val.pkl',
)
test_evaluator = val_evaluator

# One frame gives the same batch statistics again and again; the running ones follow quickly.
norm_cfg = dict(eps=0.001, momentum=0.1)
model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(
            point_cloud_range=point_cloud_range,
            voxel_size=voxel_size,
            max_voxels=(20000, 20000),
        )
    ),
    pts_middle_encoder=dict(sparse_shape=[21, 480, 480], norm_cfg=dict(type='BN1d', **norm_cfg)),
    pts_backbone=dict(norm_cfg=norm_cfg),
    pts_neck=dict(norm_cfg=norm_cfg),
    pts_bbox_head=dict(
        point_cloud_range=point_cloud_range,
        num_query=300,
        wavelengths=(2.0, 1 / 30),
        box_coder=dict(post_center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0], max_num=300),
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
