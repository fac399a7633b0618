"""The router alone learns: all of CMT is frozen."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

router = ['aqr_weight_generator', 'attention_bias_generator']
model = dict(_base_.recipe_d.model, pts_bbox_head=dict(frozen=True, always_trainable=router))
optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.aqr_rates))
