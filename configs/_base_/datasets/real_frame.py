"""One real nuScenes keyframe, to train on and to score on; no augmentation, no past sweeps.

Made from mmdet3d's demo data by
`python tools/make_frame_tables.py ../shared/nuscenes_frame --out data/real_frame`.
`mAP_present` is the mean over the classes that have a scored box in it.
"""

_base_ = './nuscenes_fusion.py'

data_root = 'data/real_frame/'
train_pipeline = [
    *_base_.load_points,
    *_base_.load_images,
    _base_.load_boxes,
    _base_.filter_points,
    *_base_.filter_boxes,
    _base_.fit_images,
    _base_.pack_train,
]
dataset = dict(data_root=data_root, metainfo=dict(version='v1.0-mini'))
train_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='InfiniteSampler', shuffle=False),
    dataset=dict(
        _delete_=True,
        **_base_.val_dataloader.dataset,
    ),
)
val_dataloader = dict(num_workers=1, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='PresentClassesMetric',
    data_root=data_root,
    ann_file=data_root + 'nuscenes_infos_val.pkl',
)
test_evaluator = val_evaluator
