"""Vision encoders for the synthetic database: ViTs of four blocks, one token for 8 x 8 pixels.

`benchmarks/encoders/compare.sh` trains them by different means and writes these folders.
"""

_base_ = './encoders.py'

sizes = dict(
    hidden_size=96, num_hidden_layers=4, num_attention_heads=4, patch_size=8, image_size=64
)
tiny_dinov2 = dict(
    type='VisionEncoder',
    pretrained='work_dirs/encoders/tiny_dinov2',
    architecture=dict(model_type='dinov2', mlp_ratio=2, **sizes),
    frozen=True,
)
tiny_siglip = dict(
    type='VisionEncoder',
    pretrained='work_dirs/encoders/tiny_siglip',
    architecture=dict(model_type='siglip_vision_model', intermediate_size=192, **sizes),
    frozen=True,
)
