"""A trained CMT fine-tuned by the recipe `frozen`, without a router.

Give the trained CMT as `load_from`: the run refuses to start from random frozen weights.
"""

_base_ = ['./cmt_voxel0100_r50_800x320_cbgs.py', '../_base_/recipes.py']

model = _base_.recipes.frozen.model
optim_wrapper = dict(
    optimizer=dict(lr=1.4e-4),
    # In place of the rates and the weight decay by which the backbone is trained.
    paramwise_cfg=dict(_delete_=True, **_base_.recipes.frozen.optim_wrapper.paramwise_cfg),
)
max_epochs = _base_.finetune_epochs
param_scheduler = [
    _base_.finetune_schedule[0],
    dict(_base_.finetune_schedule[1], T_max=max_epochs),
]
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)

# As in the last epochs of CMT's training, no objects are pasted.
train_pipeline = [step for step in _base_.train_pipeline if step != _base_.paste_objects]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
