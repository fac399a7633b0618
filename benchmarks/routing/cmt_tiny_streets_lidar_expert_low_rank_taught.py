"""`cmt_tiny_streets_lidar_expert_low_rank.py` with a teacher."""

_base_ = './cmt_tiny_streets_lidar_expert_taught.py'

model = dict(pts_bbox_head=dict(rank=8))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
