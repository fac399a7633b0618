"""The shipped tiny CMT fine-tuned by the recipe `frozen`, without a router.

The control of `configs/cmt_aqr/cmt_aqr_tiny_synthetic.py`: the same data, steps and rates.
"""

_base_ = ['./cmt_tiny_synthetic.py', '../_base_/recipes.py']

max_epochs = 6
model = _base_.recipes.frozen.model
optim_wrapper = dict(optimizer=dict(lr=5e-4), **_base_.recipes.frozen.optim_wrapper)
param_scheduler = [
    dict(_base_.finetune_schedule[0], end=10),
    dict(_base_.finetune_schedule[1], T_max=max_epochs),
]
# Scored by tools/test.py, and not after training.
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs, val_begin=max_epochs + 1)
default_hooks = dict(logger=dict(interval=10))

load_from = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
