"""The Adaptive Query Router, and the learning rates of its parts beside those of a recipe."""

aqr = dict(
    type='AdaptiveQueryRouter',
    windows=dict(lidar=5, camera=8),
    weight_generator=dict(type='AQRWeightGenerator', groups='modality', activation='tanh'),
    routing=dict(type='GateRouting'),
)
aqr_rates = {
    'aqr_weight_generator': dict(lr_mult=1.0),
    'attention_bias_generator': dict(lr_mult=1.0),
    'attention_bias_generator.bias_scale': dict(lr_mult=0.5),
}
