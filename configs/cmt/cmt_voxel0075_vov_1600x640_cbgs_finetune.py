"""Recipe A without a router: a trained CMT fine-tuned with its backbones frozen.

Give the trained CMT as `load_from`; the run refuses to start from random frozen weights.
"""

_base_ = ['./cmt_voxel0075_vov_1600x640_cbgs.py', '../_base_/recipes.py']

model = _base_.recipe_a.model
optim_wrapper = dict(
    optimizer=_base_.finetune_optimizer,
    paramwise_cfg=dict(_delete_=True, custom_keys=_base_.recipe_a.rates),
)
param_scheduler = _base_.finetune_schedule
train_cfg = dict(max_epochs=_base_.finetune_epochs, val_interval=_base_.finetune_epochs)

# As in the last epochs of the training that is continued, no objects are pasted.
train_pipeline = [step for step in _base_.train_pipeline if step != _base_.paste_objects]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
