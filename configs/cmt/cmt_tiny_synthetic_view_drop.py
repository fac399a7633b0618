"""Scores the tiny CMT without cameras: every image is black."""

_base_ = './cmt_tiny_synthetic.py'

test_pipeline = [
    *_base_.test_pipeline[: len(_base_.load_inputs)],
    dict(type='ModalMask3D', drop='camera'),
    *_base_.test_pipeline[len(_base_.load_inputs) :],
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
