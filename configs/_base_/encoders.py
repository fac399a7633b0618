"""Frozen vision encoders of nuScenes size, and the images that all of them take.

The towers are read from folders with `config.json` and `model.safetensors`, see docs/encoders.md.
With `architecture`, a model also builds without these files, to be filled by a checkpoint.
"""

# RGB in [0, 1]; each encoder normalises them itself.
images = dict(mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True)
dinov2_base = dict(
    type='VisionEncoder',
    pretrained='checkpoints/dinov2-base',
    architecture=dict(model_type='dinov2', image_size=518),
    stride=16,  # as ResNet-50 has it: 20 x 50 tokens of images of 320 x 800
    frozen=True,
)
siglip_base = dict(
    type='VisionEncoder',
    pretrained='checkpoints/siglip-base-patch16-224',
    architecture=dict(model_type='siglip_vision_model'),
    stride=16,
    frozen=True,
)
# The projector starts at random, unlike the neck of a trained CMT.
projector_rate = dict(img_neck=dict(lr_mult=1.0))
