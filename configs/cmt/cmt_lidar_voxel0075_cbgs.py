"""CMT of LiDAR alone with 0.075 m voxels, as released.

The convolutions of its branches span three queries, each with its neighbours in the order of the
queries; those of the other released models span one.
"""

_base_ = './cmt_voxel0075_vov_1600x640_cbgs.py'

model = dict(
    data_preprocessor=dict(mean=None, std=None),
    grid_mask=None,
    img_backbone=None,
    img_neck=None,
    pts_bbox_head=dict(modalities=('lidar',), final_kernel=3),
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
val_evaluator = dict(modality=modality)
test_evaluator = val_evaluator

optim_wrapper = dict(paramwise_cfg=None)  # its keys name the image branch
# The rate climbs as far as that of the r50 model.
param_scheduler = [
    dict(_base_.param_scheduler[0], eta_min_ratio=6),
    *_base_.param_scheduler[1:],
]
