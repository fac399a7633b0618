"""An ablation: each query chooses LiDAR, cameras or both, from one label a frame, as in MoME."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

aqr = dict(
    type='HardChoiceRouter',
    weight_generator=dict(type='ExpertLogits'),
    routing=dict(type='HardChoiceRouting'),
)
model = dict(pts_bbox_head=dict(aqr=aqr))
