"""Recipe B with a router: with necks that learn faster than by recipe A."""

_base_ = './cmt_aqr_tiny_synthetic.py'

model = _base_.recipe_b.model
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, custom_keys={**_base_.recipe_b.rates, **_base_.aqr_rates})
)
