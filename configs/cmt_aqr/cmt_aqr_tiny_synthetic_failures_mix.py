"""A mix instead of a gate: the router sets the shares of the sensors in the output of attention."""

_base_ = './cmt_aqr_tiny_synthetic_failures.py'

model = dict(pts_bbox_head=dict(aqr=dict(routing=dict(type='MixRouting'))))
