"""An ablation: all queries of a frame learn from one label, the health of a whole sensor."""

_base_ = './cmt_aqr_tiny_synthetic_failures_labels.py'

model = dict(pts_bbox_head=dict(aqr=dict(reliability=dict(labels='frame'))))
