"""The shipped tiny CMT fine-tuned by recipe A: backbones frozen, no router.

What a router is to be held against: the same data, steps and rates.
"""

_base_ = ['./cmt_tiny_synthetic.py', '../_base_/recipes.py']

max_epochs = 6
model = _base_.recipe_a.model
optim_wrapper = dict(
    optimizer=dict(lr=5e-4),
    paramwise_cfg=dict(_delete_=True, custom_keys=_base_.recipe_a.rates),
)
param_scheduler = [
    dict(_base_.finetune_schedule[0], end=10),
    dict(_base_.finetune_schedule[1], T_max=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs + 1)  # scored by tools/test.py
default_hooks = dict(logger=dict(interval=10))

load_from = 'projects/cmt_aqr/weights/cmt_tiny_synthetic.pth'
