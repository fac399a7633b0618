"""The shipped tiny CMT with a router, trained on cached features, and so without augmentation.

LiDAR or cameras still fail at random, in four variants of each sample.
"""

_base_ = './cmt_aqr_tiny_synthetic.py'

*load_inputs, fit_images, _ = _base_.test_pipeline
train_pipeline = [
    dict(type='DrawIndex', variants=4),
    dict(
        type='RandomFailure',
        prob=0.6,
        failures=[dict(type='LidarDrop'), dict(type='CameraDrop')],
    ),
    *load_inputs,
    fit_images,
    dict(type='LoadAnnotations3D', with_bbox_3d=True, with_label_3d=True),
    dict(type='ObjectRangeFilter', point_cloud_range=_base_.point_cloud_range),
    dict(type='ObjectNameFilter', classes=_base_.class_names),
    _base_.train_pipeline[-1],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

feature_cache = dict(directory='work_dirs/features', max_gigabytes=10)
