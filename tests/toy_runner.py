"""A real mmengine Runner around a model of two numbers, for tests of hooks, patches and tools."""

import itertools
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

_RUN_NUMBER = itertools.count()


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Four points on the line y = 2x."""

    metainfo = dict(classes=('line',))

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        x = torch.tensor([float(index)])
        return dict(inputs=x, data_samples=2 * x)


@MODELS.register_module()
class ToyModel(BaseModel):
    """A straight line through the origin with slope 0, at first."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(1, 1)
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)

    def forward(self, inputs: torch.Tensor, data_samples: torch.Tensor, mode: str = 'tensor'):
        prediction = self.line(inputs)
        if mode == 'loss':
            return dict(loss_line=((prediction - data_samples) ** 2).mean())
        return [*prediction]


@METRICS.register_module()
class CountMetric(BaseMetric):
    """Counts the predictions."""

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(count=float(len(results)))


def make_runner(
    work_dir: Path, *, epochs: int = 1, model: nn.Module | None = None, **options
) -> Runner:
    """Runner that trains and validates for ``epochs`` and saves a checkpoint after each.

    Args:
        work_dir: of the run.
        epochs: of two iterations each.
        model: trained in place of a ``ToyModel``, on the same points.
        options: further ones of the Runner.
    """

    def loader(shuffle: bool) -> dict:
        sampler = dict(type='DefaultSampler', shuffle=shuffle)
        collate = dict(type='default_collate')
        return dict(dataset=ToyDataset(), batch_size=2, sampler=sampler, collate_fn=collate)

    return Runner(
        model=model or ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=loader(shuffle=True),
        val_dataloader=loader(shuffle=False),
        val_evaluator=[CountMetric()],
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_cfg={},
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1]),
        default_hooks=dict(
            checkpoint=dict(type='CheckpointHook', interval=1, save_best='count', rule='greater')
        ),
        randomness=dict(seed=3),
        # mmengine keeps its log and its messages by this name, one run each.
        experiment_name=f'toy_{next(_RUN_NUMBER)}',
        **options,
    )
