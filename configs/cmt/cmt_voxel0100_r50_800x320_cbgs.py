"""CMT of LiDAR and cameras with ResNet-50 at 800 x 320 and 0.1 m voxels, as released.

The released model started from an image backbone that a detector had trained on nuImages: give such
weights as `load_from`.
"""

_base_ = [
    '../_base_/default_runtime.py',
    '../_base_/datasets/nuscenes_fusion.py',
    '../_base_/schedules/cmt_20e.py',
]

custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EpochSeedHook'),
    # The last five epochs see the data as they are.
    dict(type='StopObjectSampleHook', num_last_epochs=5),
]
