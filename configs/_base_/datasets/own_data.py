"""A dataset of one's own, with LiDAR and any number of cameras: see docs/own_data.md.

Classes, columns of the points and calibration are in the info files, the range in the model. A
config adds the data root, the info files and its classes.
"""

_base_ = '../packing.py'

image_size = (320, 800)

# Masked-modal training: 0.4 of the samples lose the LiDAR, 0.2 all cameras.
drop_sensors = [
    dict(type='DrawIndex'),
    dict(
        type='RandomFailure',
        prob=0.6,
        failures=[dict(type='LidarDrop'), dict(type='LidarDrop'), dict(type='CameraDrop')],
    ),
]
# Up to ten sweeps, where the info files list some.
load_points = [
    dict(type='LoadPointsOfKeyframe'),
    dict(type='LoadPointsOfSweeps', sweeps_num=10, use_dim=[0, 1, 2, 3, 4]),
]
load_latest_points = [load_points[0], dict(load_points[1], test_mode=True)]
load_images = [dict(type='LoadMultiViewImages'), dict(type='ComputeLidar2Img')]
load_boxes = dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True)
move_scene = [
    dict(
        type='GlobalRotScaleTransAll',
        rot_range=[-0.785, 0.785],
        scale_ratio_range=[0.95, 1.05],
        translation_std=[0.2, 0.2, 0.1],
    ),
    dict(type='RandomFlip3DAll'),
]
augment_images = dict(type='ResizeCropFlipImage', final_dim=image_size, zoom_lim=(0.94, 1.25))
fit_images = dict(type='ResizeCropFlipImage', final_dim=image_size, training=False)
pack_train = dict(
    type='Pack3DDetInputs',
    keys=['points', 'img', 'gt_bboxes_3d', 'gt_labels_3d'],
    meta_keys=_base_.meta_keys,
)
pack_test = dict(type='Pack3DDetInputs', keys=['points', 'img'], meta_keys=_base_.meta_keys)
train_pipeline = [
    *drop_sensors,
    *load_points,
    *load_images,
    load_boxes,
    *move_scene,
    dict(type='PointShuffle'),
    augment_images,
    pack_train,
]
test_pipeline = [*load_latest_points, *load_images, fit_images, pack_test]

train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CmtDataset', pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='CmtDataset', pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='DetectionMetric')
test_evaluator = val_evaluator
