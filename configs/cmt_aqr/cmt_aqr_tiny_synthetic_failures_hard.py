"""An ablation: each query chooses LiDAR, cameras or both, from one label a frame, as in MoME."""

_base_ = './cmt_aqr_tiny_synthetic_failures_labels.py'

aqr = dict(
    weight_generator=dict(activation='none'),
    bias_generator=dict(form='hard'),
    reliability=dict(labels='frame'),
)
model = dict(pts_bbox_head=dict(aqr=aqr))
