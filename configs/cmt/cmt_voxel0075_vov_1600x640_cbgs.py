"""CMT of LiDAR and cameras with VoVNet-99 at 1600 x 640 and 0.075 m voxels, as released.

The released model started from an image backbone trained by FCOS3D: give such weights as
`load_from`.
"""

_base_ = './cmt_voxel0100_r50_800x320_cbgs.py'

voxel_size = [0.075, 0.075, 0.2]
model = dict(
    crops_range=False,
    data_preprocessor=dict(voxel_layer=dict(voxel_size=voxel_size)),
    img_backbone=dict(
        _delete_=True,
        type='VoVNet',
        spec_name='V-99-eSE',
        out_features=('stage4', 'stage5'),
        norm_eval=True,
    ),
    img_neck=dict(in_channels=[768, 1024]),
    pts_middle_encoder=dict(sparse_shape=None),  # all of the range, unlike r50
)
pack_health = dict(voxel_size=voxel_size, bev_stride=_base_.out_size_factor)

image_size = (640, 1600)
augment_images = dict(_base_.augment_images, final_dim=image_size)
fit_images = dict(_base_.fit_images, final_dim=image_size)
# Images of this size are decoded whole.
small, whole = _base_.load_small_images[0], _base_.load_images[0]
steps = [whole if step == small else step for step in _base_.train_pipeline[:-2]]
train_pipeline = [*steps, augment_images, _base_.pack_train]
test_pipeline = [*_base_.test_pipeline[:-2], fit_images, _base_.pack_test]
train_dataloader = dict(batch_size=2, dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Half the batch at a lower rate, which climbs further.
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(_base_.param_scheduler[0], eta_min_ratio=8),
    *_base_.param_scheduler[1:],
]
auto_scale_lr = dict(base_batch_size=16)
