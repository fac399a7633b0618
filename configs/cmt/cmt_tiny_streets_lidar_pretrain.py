"""Trains the LiDAR branch of the tiny CMT for the streets alone, as that of a CenterPoint.

It starts from `cmt_tiny_streets_image_pretrain.py` to pass on that image branch unchanged.
"""

_base_ = './cmt_tiny_streets.py'

grid = [
    round((high - low) / size)
    for low, high, size in zip(
        _base_.point_cloud_range[:3],
        _base_.point_cloud_range[3:],
        _base_.voxel_size,
        strict=True,
    )
]
head = dict(
    grid_size=grid,
    voxel_size=_base_.voxel_size,
    point_cloud_range=_base_.point_cloud_range,
    out_size_factor=_base_.out_size_factor,
    gaussian_overlap=0.1,
    max_objs=100,
    min_radius=1,
    dense_reg=1,
    code_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2],
)
model = dict(
    _delete_=True,
    type='CenterPoint',
    data_preprocessor=_base_.model.data_preprocessor,
    img_backbone=_base_.model.img_backbone,
    img_neck=_base_.model.img_neck,
    pts_voxel_encoder=_base_.model.pts_voxel_encoder,
    pts_middle_encoder=dict(
        **_base_.model.pts_middle_encoder, sparse_shape=[grid[2] + 1, grid[1], grid[0]]
    ),
    pts_backbone=_base_.model.pts_backbone,
    pts_neck=_base_.model.pts_neck,
    pts_bbox_head=dict(
        type='mmdet3d.CenterHead',
        in_channels=sum(_base_.model.pts_neck.out_channels),
        tasks=[dict(num_class=1, class_names=[name]) for name in _base_.class_names],
        common_heads=dict(reg=(2, 2), height=(1, 2), dim=(3, 2), rot=(2, 2), vel=(2, 2)),
        share_conv_channel=64,
        separate_head=dict(
            type='mmdet3d.SeparateHead', head_conv=16, init_bias=-2.19, final_kernel=3
        ),
        loss_cls=dict(type='mmdet.GaussianFocalLoss', reduction='mean'),
        loss_bbox=dict(type='mmdet.L1Loss', reduction='mean', loss_weight=0.25),
        bbox_coder=dict(
            type='mmdet3d.CenterPointBBoxCoder',
            pc_range=_base_.point_cloud_range[:2],
            out_size_factor=_base_.out_size_factor,
            voxel_size=_base_.voxel_size[:2],
            max_num=100,
            code_size=9,
        ),
        norm_bbox=True,
    ),
    train_cfg=dict(pts=head),
)
train_pipeline = [
    transform
    for transform in _base_.train_pipeline
    if transform.type
    not in (
        'DrawIndex',
        'RandomFailure',
        'LoadMultiViewImages',
        'ComputeLidar2Img',
        'ResizeCropFlipImage',
    )
]
train_pipeline[-1].update(keys=['points', 'gt_bboxes_3d', 'gt_labels_3d'])
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

max_epochs = 4
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=max_epochs)]
optim_wrapper = dict(paramwise_cfg=None)
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
val_dataloader = val_evaluator = val_cfg = None
load_from = 'work_dirs/cmt_tiny_streets_image_pretrain/epoch_3.pth'
