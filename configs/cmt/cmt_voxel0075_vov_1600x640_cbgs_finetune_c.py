"""Recipe C without a router: nothing frozen, the backbones at a low rate."""

_base_ = './cmt_voxel0075_vov_1600x640_cbgs_finetune.py'

model = _base_.recipe_c.model
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.recipe_c.rates))
