"""The last epochs of the tiny CMT's training, with a rate that falls to almost zero.

It continues from the end of `cmt_tiny_synthetic_trainval.py`. The shipped weights are its last
epoch.
"""

_base_ = './cmt_tiny_synthetic_trainval.py'

max_epochs = 3
optim_wrapper = dict(optimizer=dict(lr=1.15e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(_base_.param_scheduler[1], T_max=max_epochs, eta_min_ratio=0.002),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)

load_from = 'work_dirs/cmt_tiny_synthetic_trainval/epoch_5.pth'
