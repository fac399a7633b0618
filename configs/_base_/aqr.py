"""The Adaptive Query Router: its parts, and their rates beside those of a recipe."""

aqr = dict(
    windows=dict(lidar=5, camera=8),
    weight_generator=dict(type='AQRWeightGenerator', groups='modality', activation='tanh'),
    bias_generator=dict(type='AttentionBiasGenerator', form='gate'),
)
aqr_rates = {
    'aqr_weight_generator': dict(lr_mult=1.0),
    'attention_bias_generator': dict(lr_mult=1.0),
    'attention_bias_generator.bias_scale': dict(lr_mult=0.5),
}
