"""nuScenes with LiDAR and cameras, as for the released CMT: images of 800 x 320 pixels.

Points of ten past sweeps, class-balanced sampling, objects of other samples pasted into points and
images, masked-modal training, and augmentation of scene and images.
"""

_base_ = '../nuscenes.py'

point_cloud_range = [-54.0, -54.0, -5.0, 54.0, 54.0, 3.0]
# Detections with centres outside are discarded.
post_center_range = [-61.2, -61.2, -10.0, 61.2, 61.2, 10.0]

data_root = 'data/nuscenes/'
version = 'v1.0-trainval'
data_command = (
    'put nuScenes or a link to it at data/nuscenes, then '
    'python tools/create_data.py data/nuscenes --version v1.0-trainval --with-database'
)
image_size = (320, 800)

# Steps of the pipelines, which other configs recombine.
# Masked-modal training: a quarter of the samples loses the LiDAR, another quarter all cameras.
drop_sensors = [
    dict(type='DrawIndex'),
    dict(
        type='RandomFailure',
        prob=0.5,
        failures=[dict(type='LidarDrop'), dict(type='CameraDrop')],
    ),
]
load_points = [
    dict(type='LoadPointsOfKeyframe', coord_type='LIDAR', load_dim=5, use_dim=5),
    dict(type='LoadPointsOfSweeps', sweeps_num=10, use_dim=[0, 1, 2, 3, 4]),
]
# Takes the latest ten sweeps; in training, ten are drawn at random if there are more.
load_latest_points = [load_points[0], dict(load_points[1], test_mode=True)]
load_images = [dict(type='LoadMultiViewImages'), dict(type='ComputeLidar2Img')]
# In training, decodes JPEGs at half their size, which still fills the images.
load_small_images = [dict(load_images[0], final_dim=image_size), load_images[1]]
load_boxes = dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True)
# Pastes objects until a sample has this many of each class.
paste_objects = dict(
    type='JointObjectSample',
    mixup_rate=0.5,
    db_sampler=dict(
        database=data_root + 'nuscenes_objects',
        min_points=5,
        classes=_base_.class_names,
        sample_groups=dict(
            car=2,
            truck=3,
            construction_vehicle=7,
            bus=4,
            trailer=6,
            barrier=2,
            motorcycle=6,
            bicycle=6,
            pedestrian=2,
            traffic_cone=2,
        ),
    ),
)
move_scene = [
    dict(
        type='GlobalRotScaleTransAll',
        rot_range=[-0.785, 0.785],
        scale_ratio_range=[0.9, 1.1],
        translation_std=[0.5, 0.5, 0.5],
    ),
    dict(type='RandomFlip3DAll', flip_ratio_bev_horizontal=0.5, flip_ratio_bev_vertical=0.5),
]
filter_points = dict(type='PointsRangeFilter', point_cloud_range=point_cloud_range)
filter_boxes = [
    dict(type='ObjectRangeFilter', point_cloud_range=point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
]
augment_images = dict(type='ResizeCropFlipImage', final_dim=image_size, zoom_lim=(0.94, 1.25))
fit_images = dict(type='ResizeCropFlipImage', final_dim=image_size, training=False)
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
    image_stride=16,
    samples=2,
)
pack_test = dict(type='Pack3DDetInputs', keys=['points', 'img'], meta_keys=_base_.meta_keys)

train_pipeline = [
    *drop_sensors,
    *load_points,
    *load_small_images,
    load_boxes,
    paste_objects,
    *move_scene,
    filter_points,
    *filter_boxes,
    dict(type='PointShuffle'),
    augment_images,
    pack_train,
]
test_pipeline = [*load_latest_points, *load_images, filter_points, fit_images, pack_test]

dataset = dict(
    type='CmtDataset',
    data_root=data_root,
    data_prefix=_base_.data_prefix,
    metainfo=dict(classes=_base_.class_names),
    modality=_base_.modality,
    box_type_3d='LiDAR',  # MMDetection3D's inference reads it from the config
)
train_dataloader = dict(
    batch_size=4,
    num_workers=6,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CBGSDataset',
        dataset=dict(ann_file='nuscenes_infos_train.pkl', pipeline=train_pipeline, **dataset),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
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
