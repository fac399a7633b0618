"""CMT of LiDAR and cameras with ResNet-50 at 800 x 320 and 0.1 m voxels, as released.

The released model started from the image backbone of a detector trained on nuImages: give such
weights as `load_from`.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/nuscenes_fusion.py',
    '../_base_/models/cmt_r50.py',
    '../_base_/schedules/cmt_20e.py',
]

voxel_size = [0.1, 0.1, 0.2]
model = dict(
    crops_range=True,
    data_preprocessor=dict(
        voxel_layer=dict(voxel_size=voxel_size, point_cloud_range=_base_.point_cloud_range)
    ),
    # Voxels along z, y and x. The range has 1080 of them along y and x, but the released weights
    # were trained on 1024, a declared exception: points beyond 48.4 m to the right or ahead are
    # lost.
    pts_middle_encoder=dict(sparse_shape=[41, 1024, 1024]),
    pts_bbox_head=dict(
        tasks=[_base_.class_names],
        box_coder=dict(post_center_range=_base_.post_center_range),
    ),
)
pack_health = dict(voxel_size=voxel_size, bev_stride=_base_.out_size_factor)

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EpochSeedHook'),
    # The last five epochs train without pasted objects.
    dict(type='StopObjectSampleHook', num_last_epochs=5),
]
