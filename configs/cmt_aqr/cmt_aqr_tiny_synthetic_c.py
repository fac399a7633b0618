"""Recipe C with a router: nothing frozen, the backbones at a low rate."""

_base_ = './cmt_aqr_tiny_synthetic.py'

model = _base_.recipe_c.model
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, custom_keys={**_base_.recipe_c.rates, **_base_.aqr_rates})
)
