"""The synthetic nuScenes database, with images and range for the tiny CMT."""

_base_ = '../nuscenes.py'

point_cloud_range = [-25.6, -25.6, -3.0, 25.6, 25.6, 3.0]
# Detections with centres outside are discarded.
post_center_range = [-30.0, -30.0, -10.0, 30.0, 30.0, 10.0]

data_root = 'data/synthetic_nuscenes/'
data_command = (
    'python tools/make_synthetic_nuscenes.py && python tools/create_data.py data/synthetic_nuscenes'
)
image_size = (64, 176)
num_sweeps = 1

load_inputs = [
    dict(type='LoadPointsOfKeyframe', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='LoadPointsOfSweeps', sweeps_num=num_sweeps, use_dim=[0, 1, 2, 3, 4]),
    dict(type='LoadMultiViewImages'),
    dict(type='ComputeLidar2Img'),
]
# Masked-modal training: 0.4 of the samples lose the LiDAR, 0.2 all cameras.
drop_sensors = [
    dict(type='DrawIndex'),
    dict(
        type='RandomFailure',
        prob=0.6,
        failures=[dict(type='LidarDrop'), dict(type='LidarDrop'), dict(type='CameraDrop')],
    ),
]
pack_train = dict(
    type='Pack3DDetInputs',
    keys=['points', 'img', 'gt_bboxes_3d', 'gt_labels_3d'],
    meta_keys=_base_.meta_keys,
)
# In place of pack_train, for variants with a reliability loss. A config with a model adds the
# `voxel_size` and the `bev_stride`.
pack_health = dict(
    pack_train,
    type='PackHealth',
    point_cloud_range=point_cloud_range,
    image_stride=8,
)
train_pipeline = [
    *drop_sensors,
    *load_inputs,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(
        type='GlobalRotScaleTransAll',
        rot_range=[-0.785, 0.785],
        scale_ratio_range=[0.95, 1.05],
        translation_std=[0.2, 0.2, 0.1],
    ),
    dict(type='RandomFlip3DAll', flip_ratio_bev_horizontal=0.5, flip_ratio_bev_vertical=0.5),
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    dict(type='PointShuffle'),
    dict(
        type='ResizeCropFlipImage',
        final_dim=image_size,
        zoom_lim=(0.96, 1.12),
        rand_flip=False,
    ),
    pack_train,
]
test_pipeline = [
    load_inputs[0],
    dict(**load_inputs[1], test_mode=True),  # the latest sweep, not one drawn at random
    *load_inputs[2:],
    dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ResizeCropFlipImage', final_dim=image_size, training=False),
    dict(type='Pack3DDetInputs', keys=['points', 'img'], meta_keys=_base_.meta_keys),
]

dataset = dict(
    type='CmtDataset',
    data_root=data_root,
    data_prefix=_base_.data_prefix,
    metainfo=dict(classes=_base_.class_names),
    modality=_base_.modality,
    box_type_3d='LiDAR',  # MMDetection3D's inference reads it from the config
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(ann_file='nuscenes_infos_train.pkl', pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='nuscenes_infos_val.pkl', pipeline=test_pipeline, test_mode=True, **dataset
    ),
)
test_dataloader = val_dataloader
# Of the samples and classes of the tested dataset.
val_evaluator = dict(type='FramesMetric', modality=_base_.modality)
test_evaluator = val_evaluator
