"""CMT of LiDAR alone with 0.075 m voxels, as released.

The convolutions of its branches span three queries, each with its neighbours in the order of the
queries; those of the other released models span one.
"""

_base_ = './cmt_lidar_voxel0100_cbgs.py'

model = dict(
    data_preprocessor=dict(voxel_layer=dict(voxel_size=[0.075, 0.075, 0.2])),
    pts_middle_encoder=dict(sparse_shape=[41, 1440, 1440]),
    pts_bbox_head=dict(final_kernel=3),
)

train_dataloader = dict(batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=1e-4))
auto_scale_lr = dict(base_batch_size=16)
