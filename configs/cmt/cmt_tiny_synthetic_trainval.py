"""The tiny CMT on the large synthetic database, as the shipped weights were trained.

It starts from `cmt_tiny_image_pretrain.py` and `cmt_tiny_lidar_pretrain.py`, which take a few
minutes each: without the first the model ignores the cameras, without the second it learns boxes
much more slowly.
"""

_base_ = './cmt_tiny_synthetic.py'

data_root = 'data/synthetic_trainval/'
data_command = (
    'python tools/make_synthetic_nuscenes.py --out data/synthetic_trainval --version v1.0-trainval '
    '--train-scenes 240 --val-scenes 30 --keyframes 10 --sweeps 1 --seed 1 && '
    'python tools/create_data.py data/synthetic_trainval --version v1.0-trainval'
)
dataset = dict(data_root=data_root)
train_dataloader = dict(dataset=dataset)
val_dataloader = dict(dataset=dataset)
test_dataloader = val_dataloader

load_from = 'work_dirs/cmt_tiny_lidar_pretrain/epoch_1.pth'

# Stops on the way down a cosine over eleven epochs; `cmt_tiny_synthetic_anneal.py` goes on.
train_cfg = dict(max_epochs=5, val_interval=5)
