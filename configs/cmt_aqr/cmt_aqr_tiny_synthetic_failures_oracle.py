"""No router but the truth: every query is given the health of its windows, in tests as well.

Weights of `cmt_aqr_tiny_synthetic_failures_labels.py` fit. It tells what routing by health gains.
"""

_base_ = './cmt_aqr_tiny_synthetic_failures_labels.py'

model = dict(pts_bbox_head=dict(aqr=dict(oracle=True)))
find_unused_parameters = True  # those of the router
*test_pipeline, pack = _base_.test_pipeline
test_pipeline = [*test_pipeline, _base_.pack_health, dict(pack, meta_keys=_base_.meta_keys)]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
val_dataloader = test_dataloader
