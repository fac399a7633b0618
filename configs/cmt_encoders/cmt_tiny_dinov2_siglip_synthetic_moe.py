"""Both ViTs, with a mixture of experts on the layer that a classifier chooses for each image."""

_base_ = './cmt_tiny_dinov2_siglip_synthetic.py'

layers = [0, 1, 2, 3]
model = dict(
    type='LayerTrialDetector',
    img_backbone=dict(first=dict(layers=layers), second=dict(layers=layers)),
    img_neck=dict(
        type='AdaptiveMoEProjector',
        num_layers=len(layers),
        combine=dict(type='AdaptiveLayers', num_layers=len(layers), channels=96 + 96),
    ),
)
custom_hooks = [*_base_.custom_hooks, dict(type='ChoiceLogHook', interval=10)]
