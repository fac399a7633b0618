"""A tiny CMT for the synthetic streets: wider than `cmt_tiny.py`, with larger images.

Its cross-attention starts local, but without heads split by sensor, and each modality is decoded
alone as well, so that either sensor suffices for a box and a router has a balance to shift.
"""

_base_ = './cmt_tiny.py'

model = dict(
    img_backbone=dict(base_channels=48),
    img_neck=dict(in_channels=[96, 192], out_channels=96),
    pts_middle_encoder=dict(
        base_channels=16,
        output_channels=64,
        encoder_channels=((16, 16), (16, 32), (32, 64), (64,)),
    ),
    pts_bbox_head=dict(
        hidden_dim=96,
        num_query=160,
        init_local_attention=dict(lidar=3.0, camera=3.0, split_heads=False),
        branch_channels=48,
        transformer=dict(feedforward_channels=384),
        all_combinations=True,
    ),
)
