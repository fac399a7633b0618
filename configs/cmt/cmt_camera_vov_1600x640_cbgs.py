"""CMT of cameras alone with VoVNet-99 at 1600 x 640, as released.

Without GridMask; scenes are rotated and scaled less than with LiDAR, and neither shifted nor
mirrored. The released model started from an image backbone trained by FCOS3D: give such weights as
`load_from`.
"""

_base_ = './cmt_voxel0075_vov_1600x640_cbgs.py'

model = dict(
    data_preprocessor=dict(voxel_layer=None),
    grid_mask=None,
    pts_voxel_encoder=None,
    pts_middle_encoder=None,
    pts_backbone=None,
    pts_neck=None,
    pts_bbox_head=dict(
        point_cloud_range=_base_.point_cloud_range, modalities=('camera',), in_channels=None
    ),
)

modality = dict(use_lidar=False, use_camera=True)
train_pipeline = [
    *_base_.load_images,
    _base_.load_boxes,
    dict(
        type='GlobalRotScaleTransAll',
        rot_range=[-0.3925, 0.3925],
        scale_ratio_range=[0.95, 1.05],
        translation_std=[0.0, 0.0, 0.0],
    ),
    *_base_.filter_boxes,
    _base_.augment_images,
    dict(_base_.pack_train, keys=['img', 'gt_bboxes_3d', 'gt_labels_3d']),
]
test_pipeline = [
    *_base_.load_images,
    _base_.fit_images,
    dict(_base_.pack_test, keys=['img']),
]
train_dataloader = dict(dataset=dict(dataset=dict(modality=modality, pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(modality=modality, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(modality=modality)
test_evaluator = val_evaluator
