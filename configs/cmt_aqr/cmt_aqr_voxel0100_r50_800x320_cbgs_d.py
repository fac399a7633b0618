"""Recipe D with a router: features fixed, backbones and necks frozen."""

_base_ = './cmt_aqr_voxel0100_r50_800x320_cbgs.py'

model = _base_.recipe_d.model
optim_wrapper = dict(
    paramwise_cfg=dict(_delete_=True, custom_keys={**_base_.recipe_d.rates, **_base_.aqr_rates})
)
