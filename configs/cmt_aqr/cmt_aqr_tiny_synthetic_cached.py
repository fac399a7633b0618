"""The tiny router by recipe A on features that are computed once, and so without augmentation."""

_base_ = ['../cmt/cmt_tiny_synthetic_finetune_cached.py', '../_base_/aqr_tiny.py']

model = dict(pts_bbox_head=dict(aqr=_base_.aqr))
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=_base_.aqr_rates))
