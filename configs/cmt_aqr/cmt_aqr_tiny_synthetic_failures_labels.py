"""The router also learns from labels: how much of what each query looks at is undamaged."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(reliability=dict(labels='query'))))
