"""Recipe D without a router: features fixed, backbones and necks frozen."""

_base_ = './cmt_tiny_synthetic_finetune.py'

model = _base_.recipe_d.model
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.recipe_d.rates))
