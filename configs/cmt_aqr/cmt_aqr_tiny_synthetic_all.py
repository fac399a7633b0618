"""A router while all of CMT trains at the full rate: what the recipes are held against."""

_base_ = './cmt_aqr_tiny_synthetic_c.py'

optim_wrapper = dict(paramwise_cfg=dict(_delete_=True, custom_keys=_base_.aqr_rates))
