"""A run that is resumed draws what it would have drawn, in the model and in the workers."""

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose
from torch import nn
from torch.utils.data import Dataset
from toy_runner import ToyDataset, ToyModel, make_runner

from projects.cmt_aqr.hooks import EpochSeedHook


class NoisyDataset(ToyDataset):
    """The points of the line, each with noise that its pipeline draws, and notes."""

    drawn: list[float] = []  # of the class, for a Runner copies its datasets

    def __init__(self) -> None:
        self.pipeline = Compose([])
        self.pipeline.transforms.append(self._add_noise)

    def __getitem__(self, index: int) -> dict:
        return self.pipeline(super().__getitem__(index))

    def _add_noise(self, sample: dict) -> dict:
        self.drawn.append(float(np.random.rand()))
        return dict(sample, data_samples=sample['data_samples'] + self.drawn[-1])


class DropoutModel(ToyModel):
    """Drops half of its inputs."""

    def forward(self, inputs, data_samples, mode='tensor'):
        inputs = nn.functional.dropout(inputs, training=self.training)
        return super().forward(inputs, data_samples, mode)


class Wrapper:
    """Another dataset, as CBGSDataset has it."""

    def __init__(self, dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict:
        return self.dataset[index]


def train(work_dir, *, workers: int, seeded: bool = True, dataset=None, **options) -> dict:
    """The weights after three epochs."""
    hooks = [EpochSeedHook()] if seeded else []
    runner = make_runner(work_dir, epochs=3, model=DropoutModel(), custom_hooks=hooks, **options)
    loader = runner._train_dataloader
    loader.update(dataset=dataset or NoisyDataset(), num_workers=workers)
    if workers:
        loader['persistent_workers'] = True
    runner.train()
    return runner.model.state_dict()


@pytest.mark.parametrize('seeded', [True, False])
@pytest.mark.parametrize('workers', [0, 1])
def test_resume_equals_training_without_a_stop(tmp_path, workers, seeded):
    options = dict(workers=workers, seeded=seeded)
    whole = train(tmp_path / 'whole', **options)
    half_way = str(tmp_path / 'whole' / 'epoch_2.pth')
    resumed = train(tmp_path / 'resumed', load_from=half_way, resume=True, **options)
    equal = all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert equal == seeded  # without the hook the draws begin anew


def test_epochs_and_processes_draw_apart(tmp_path, monkeypatch):
    def draws(name: str, dataset: Dataset) -> list[float]:
        NoisyDataset.drawn.clear()
        train(tmp_path / name, workers=0, dataset=dataset)
        return NoisyDataset.drawn[:]

    first = draws('first', NoisyDataset())
    assert len(first) == len({*first}) == 12
    assert draws('wrapped', Wrapper(NoisyDataset())) == first
    monkeypatch.setattr('projects.cmt_aqr.hooks.epoch_seed_hook.get_rank', lambda: 1)
    assert not {*draws('other', NoisyDataset())} & {*first}


def test_a_run_by_iterations_is_refused(tmp_path):
    runner = make_runner(tmp_path, custom_hooks=[EpochSeedHook()])
    runner._train_loop = dict(type='IterBasedTrainLoop', max_iters=1)
    with pytest.raises(ValueError, match='which IterBasedTrainLoop does not count'):
        runner.train()
