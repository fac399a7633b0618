"""CMT with VoVNet-99 at 1600 x 640 and 0.075 m voxels, as released."""

_base_ = './cmt_r50.py'

model = dict(
    data_preprocessor=dict(voxel_layer=dict(voxel_size=[0.075, 0.075, 0.2])),
    img_backbone=dict(
        _delete_=True,
        type='VoVNet',
        spec_name='V-99-eSE',
        out_features=('stage4', 'stage5'),
        norm_eval=True,
    ),
    img_neck=dict(in_channels=[768, 1024]),
    pts_middle_encoder=dict(sparse_shape=[41, 1440, 1440]),
)
