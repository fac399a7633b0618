"""Trains the LiDAR branch, the decoder and the task heads of the tiny CMT without images.

It starts from `cmt_tiny_image_pretrain.py` only to pass on its image branch unchanged.
"""

_base_ = './cmt_tiny_synthetic_trainval.py'

train_pipeline = [
    transform
    for transform in _base_.train_pipeline
    if transform.type
    not in (
        'DrawIndex',
        'RandomFailure',
        'LoadMultiViewImages',
        'ComputeLidar2Img',
        'ResizeCropFlipImage',
    )
]
train_pipeline[-1].update(keys=['points', 'gt_bboxes_3d', 'gt_labels_3d'])
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))

# Half of a cosine over two epochs, since training on both sensors continues at a high rate.
param_scheduler = [_base_.param_scheduler[0], dict(_base_.param_scheduler[1], T_max=2)]
train_cfg = dict(max_epochs=1)
val_dataloader = val_evaluator = val_cfg = None

load_from = 'work_dirs/cmt_tiny_image_pretrain/epoch_2.pth'
