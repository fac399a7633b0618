"""The tiny CMT for the synthetic streets; trains on a CPU.

It starts from `cmt_tiny_streets_image_pretrain.py`, without which the model ignores the cameras.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/streets.py',
    '../_base_/models/cmt_tiny_streets.py',
    '../_base_/schedules/tiny.py',
]

voxel_size = [0.2, 0.2, 0.3]
model = dict(
    data_preprocessor=dict(
        voxel_layer=dict(voxel_size=voxel_size, point_cloud_range=_base_.point_cloud_range)
    ),
    pts_bbox_head=dict(
        tasks=[_base_.class_names],
        box_coder=dict(post_center_range=_base_.post_center_range),
    ),
)
pack_health = dict(voxel_size=voxel_size, bev_stride=_base_.out_size_factor)

max_epochs = 10
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(lr=1.4e-3))
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=max_epochs)]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)

load_from = 'work_dirs/cmt_tiny_streets_image_pretrain/epoch_3.pth'
