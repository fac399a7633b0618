"""Recipe D with a router: features fixed, backbones and necks frozen."""

_base_ = './cmt_aqr_tiny_synthetic.py'

model = _base_.recipe_d.model
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, custom_keys={**_base_.recipe_d.rates, **_base_.aqr_rates})
)
