"""The synthetic streets, with images half as large again as those of `synthetic.py`."""

_base_ = './synthetic.py'

data_root = 'data/synthetic_streets/'
data_command = (
    'python tools/make_synthetic_nuscenes.py --world streets --out data/synthetic_streets '
    '--version v1.0-trainval --train-scenes 160 --val-scenes 30 --keyframes 10 --sweeps 1 --seed 1 '
    '&& python tools/create_data.py data/synthetic_streets --version v1.0-trainval'
)
image_size = (96, 256)
# Training decodes each sensor alone as well, so fewer samples lose one than in `synthetic.py`.
drop_sensors = [_base_.drop_sensors[0], dict(_base_.drop_sensors[1], prob=0.25)]
train_pipeline = [
    *drop_sensors,
    *_base_.train_pipeline[len(drop_sensors) : -2],
    dict(_base_.train_pipeline[-2], final_dim=image_size, zoom_lim=(0.96, 1.1)),
    _base_.pack_train,
]
test_pipeline = [
    *_base_.test_pipeline[:-2],
    dict(_base_.test_pipeline[-2], final_dim=image_size),
    _base_.test_pipeline[-1],
]

dataset = dict(data_root=data_root)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
