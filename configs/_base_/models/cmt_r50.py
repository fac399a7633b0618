"""Layers and losses of CMT with ResNet-50, as released.

A config that combines it with a dataset adds what follows from the dataset: range, voxels, classes.
"""

out_size_factor = 8  # voxels along x and y in a cell of the BEV map
code_weights = [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.2]

model = dict(
    type='CmtDetector',
    data_preprocessor=dict(
        type='CmtDataPreprocessor',
        mean=[103.530, 116.280, 123.675],
        std=[57.375, 57.120, 58.395],
        pad_size_divisor=32,
        voxel_layer=dict(
            max_num_points=10,
            max_voxels=(120000, 160000),
        ),
    ),
    grid_mask=dict(type='GridMask'),
    img_backbone=dict(
        type='mmdet.ResNet',
        depth=50,
        out_indices=(2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=True,
        with_cp=True,
        style='pytorch',
    ),
    img_neck=dict(type='CPFPN', in_channels=[1024, 2048], out_channels=256, num_outs=2),
    pts_voxel_encoder=dict(type='HardSimpleVFE', num_features=5),
    pts_middle_encoder=dict(
        type='CmtSparseEncoder',
        in_channels=5,
        output_channels=128,
        order=('conv', 'norm', 'act'),
        encoder_channels=((16, 16, 32), (32, 32, 64), (64, 64, 128), (128, 128)),
        encoder_paddings=((0, 0, 1), (0, 0, 1), (0, 0, [0, 1, 1]), (0, 0)),
        block_type='basicblock',
    ),
    pts_backbone=dict(
        type='SECOND',
        in_channels=256,
        out_channels=[128, 256],
        layer_nums=[5, 5],
        layer_strides=[1, 2],
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.01),
        conv_cfg=dict(type='Conv2d', bias=False),
    ),
    pts_neck=dict(
        type='SECONDFPN',
        in_channels=[128, 256],
        out_channels=[256, 256],
        upsample_strides=[1, 2],
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.01),
        upsample_cfg=dict(type='deconv', bias=False),
        use_conv_for_no_stride=True,
    ),
    pts_bbox_head=dict(
        type='CmtHead',
        in_channels=512,
        hidden_dim=256,
        num_query=900,
        depth_num=64,
        transformer=dict(num_layers=6, num_heads=8, feedforward_channels=1024, dropout=0.1),
        denoising=dict(groups=10, noise_scale=1.0, noise_shift=0.0, split=0.75),
        code_weights=code_weights,
        box_coder=dict(type='BoxCoder', layout='released', max_num=300),
        assigner=dict(
            type='mmdet.HungarianAssigner',
            match_costs=[
                dict(type='mmdet.FocalLossCost', weight=2.0),
                dict(type='mmdet3d.BBox3DL1Cost', weight=0.25, code_weights=code_weights[:8]),
            ],
        ),
        loss_cls=dict(type='mmdet.FocalLoss', gamma=2.0, alpha=0.25, loss_weight=2.0),
        loss_bbox=dict(type='mmdet.L1Loss', loss_weight=0.25),
    ),
)
