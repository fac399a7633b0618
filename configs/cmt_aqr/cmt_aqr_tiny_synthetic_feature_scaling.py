"""An ablation: the router's weights scale the features, and add no bias to attention."""

_base_ = './cmt_aqr_tiny_synthetic.py'

aqr = dict(_base_.aqr, bias_generator=None, feature_scaling=dict(sigma=0.25))
model = dict(pts_bbox_head=dict(aqr=aqr))
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys=dict(
            _base_.recipe_a.rates, aqr_weight_generator=_base_.aqr_rates.aqr_weight_generator
        ),
    )
)
