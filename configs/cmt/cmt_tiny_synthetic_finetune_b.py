"""Recipe B without a router: with necks that learn faster than by recipe A."""

_base_ = './cmt_tiny_synthetic_finetune.py'

model = _base_.recipe_b.model
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.recipe_b.rates))
