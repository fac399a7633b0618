"""A minute of training from the shipped weights: what `make demo` runs."""

_base_ = './cmt_tiny_synthetic.py'

max_epochs = 2
optim_wrapper = dict(optimizer=dict(lr=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=10),
    dict(
        type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True
    ),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)  # scored by tools/test.py
default_hooks = dict(logger=dict(interval=5))

load_from = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
