"""A tiny CMT on the synthetic nuScenes database; trains on a CPU."""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/synthetic.py',
    '../_base_/models/cmt_tiny.py',
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
