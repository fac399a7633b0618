"""Layers and losses of a CMT small enough for a CPU: the parts of the full one, few and narrow.

The outputs mean what their names say (`layout='named'`), since no released weights have to fit.
"""

_base_ = './cmt_r50.py'

model = dict(
    data_preprocessor=dict(voxel_layer=dict(max_voxels=(12000, 12000))),
    img_backbone=dict(
        _delete_=True,
        type='mmdet.ResNet',
        depth=18,
        base_channels=32,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(1, 2),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
    ),
    img_neck=dict(in_channels=[64, 128], out_channels=64),
    grid_mask=None,
    pts_middle_encoder=dict(
        base_channels=8,
        output_channels=64,
        encoder_channels=((8, 16), (16, 32), (32, 64), (64,)),
        encoder_paddings=((0, 1), (0, 1), (0, 1), (0,)),
    ),
    pts_backbone=dict(in_channels=64, out_channels=[64, 128], layer_nums=[2, 2]),
    pts_neck=dict(in_channels=[64, 128], out_channels=[64, 64]),
    pts_bbox_head=dict(
        in_channels=128,
        hidden_dim=64,
        num_query=120,
        depth_num=32,
        wavelengths=(2.0, 1 / 16),  # the shortest is two BEV cells
        init_local_attention=dict(lidar=3.0, camera=4.5),
        branch_channels=32,
        transformer=dict(num_layers=3, num_heads=4, feedforward_channels=256, dropout=0.0),
        denoising=dict(groups=4),
        box_coder=dict(layout='named', max_num=100),
    ),
)
