"""CMT of LiDAR alone, with the LiDAR branch and the schedule of the r50 model."""

_base_ = './cmt_voxel0100_r50_800x320_cbgs.py'

model = dict(
    data_preprocessor=dict(mean=None, std=None),
    grid_mask=None,
    img_backbone=None,
    img_neck=None,
    pts_bbox_head=dict(modalities=('lidar',)),
)

modality = dict(use_lidar=True, use_camera=False)
train_pipeline = [
    *_base_.load_points,
    _base_.load_boxes,
    _base_.paste_objects,
    *_base_.move_scene,
    _base_.filter_points,
    *_base_.filter_boxes,
    dict(type='PointShuffle'),
    dict(_base_.pack_train, keys=['points', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    *_base_.load_latest_points,
    _base_.filter_points,
    dict(_base_.pack_test, keys=['points']),
]
train_dataloader = dict(dataset=dict(dataset=dict(modality=modality, pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(modality=modality, pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(paramwise_cfg=None)  # its keys are those of the image branch
