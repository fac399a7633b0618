"""The shipped tiny CMT with a linear projector of one map of its frozen ResNet; decoder trains too.

The control of the tiny configs with vision encoders. Scenes and images are not augmented, and
sensors fail in four variants of each sample, so that features can be cached.
"""

_base_ = '../cmt/cmt_tiny_synthetic_finetune.py'

model = dict(
    img_backbone=dict(out_indices=(1,), num_stages=2, strides=(1, 2), dilations=(1, 1)),
    img_neck=dict(_delete_=True, type='LinearProjector', in_channels=64, out_channels=64),
)
# The projector starts at random, unlike the neck of a trained CMT.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(img_neck=dict(lr_mult=1.0))))

draw_index, random_failure = _base_.drop_sensors
*load_inputs, fit_images, _ = _base_.test_pipeline
train_pipeline = [
    dict(draw_index, variants=4),
    random_failure,
    *load_inputs,
    fit_images,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=_base_.point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    _base_.pack_train,
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
