"""An ablation: the router's weights scale the features, and leave attention unchanged."""

_base_ = './cmt_aqr_tiny_synthetic.py'

model = dict(pts_bbox_head=dict(aqr=dict(type='FeatureModulationRouter', routing=None)))
optim_wrapper = dict(
    paramwise_cfg=dict(
        _delete_=True,
        custom_keys=dict(
            _base_.recipes.frozen.optim_wrapper.paramwise_cfg.custom_keys,
            aqr_weight_generator=_base_.aqr_rates.aqr_weight_generator,
        ),
    )
)
