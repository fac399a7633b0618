"""Workers that live on from epoch to epoch draw anew in each, whichever of them does it."""

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.registry import DATASETS
from mmengine.runner import IterBasedTrainLoop
from toy_runner import make_runner

from projects.cmt_aqr.datasets.failures import DrawIndex
from projects.cmt_aqr.hooks import DrawIndexHook

WORKERS = dict(num_workers=2, persistent_workers=True)


@DATASETS.register_module()
class DrawDataset(BaseDataset):
    """Six samples, each of which is its draw."""

    def load_data_list(self) -> list[dict]:
        return [dict(sample_idx=i) for i in range(6)]

    def __getitem__(self, index: int) -> dict:
        draw = torch.tensor([float(super().__getitem__(index)['draw'])])
        return dict(inputs=draw, data_samples=draw)


def loader_of(dataset: torch.utils.data.Dataset, **options) -> dict:
    return dict(
        dataset=dataset,
        batch_size=3,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        **options,
    )


def train(tmp_path, wrap=lambda dataset: dataset, *, loader=WORKERS, resume=False, epochs=3, **cfg):
    """Draws seen in each epoch."""
    seen = []

    class Seeing(DrawIndexHook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append((runner.epoch, data_batch['inputs'].flatten().tolist()))

    runner = make_runner(tmp_path, epochs=epochs, custom_hooks=[Seeing()], resume=resume)
    dataset = DrawDataset(pipeline=[DrawIndex(**cfg)])
    runner._train_dataloader = loader_of(wrap(dataset), **loader)
    runner.train()
    # Ended here: workers that are left to the garbage collector take five seconds each to end.
    runner.train_dataloader._iterator = None
    return seen


@pytest.mark.parametrize('loader', [WORKERS, dict(num_workers=0)], ids=['workers', 'one process'])
def test_every_sample_of_an_epoch_is_drawn_by_it(tmp_path, loader):
    seen = train(tmp_path, loader=loader)
    assert seen == [(epoch, [float(epoch)] * 3) for epoch in (0, 0, 1, 1, 2, 2)]


def test_variants_come_again(tmp_path):
    seen = train(tmp_path, variants=2)
    assert [draws[0] for _, draws in seen] == [0, 0, 1, 1, 0, 0]


def test_it_is_found_in_datasets_that_others_wrap(tmp_path):
    seen = train(tmp_path, lambda dataset: ConcatDataset([dataset]))
    assert [draws[0] for _, draws in seen] == [0, 0, 1, 1, 2, 2]


def test_a_resumed_run_goes_on_with_its_epoch(tmp_path):
    train(tmp_path, epochs=2)
    assert train(tmp_path, resume=True) == [(2, [2.0] * 3)] * 2


def test_a_run_that_counts_no_epochs_is_refused(tmp_path):
    runner = make_runner(tmp_path, custom_hooks=[DrawIndexHook()])
    runner._train_dataloader = dict(
        dataset=DrawDataset(pipeline=[DrawIndex()]),
        batch_size=3,
        sampler=dict(type='InfiniteSampler'),
        collate_fn=dict(type='default_collate'),
    )
    runner._train_loop = IterBasedTrainLoop(runner, runner._train_dataloader, max_iters=2)
    with pytest.raises(ValueError, match='IterBasedTrainLoop does not count; set by_epoch=False'):
        runner.train()


def test_random_draws_need_no_epochs(tmp_path):
    assert len({draw for _, draws in train(tmp_path, by_epoch=False) for draw in draws}) == 18


@pytest.mark.parametrize('workers', [0, 1])
def test_a_run_that_lacks_it_is_stopped_with_the_line_to_add(tmp_path, workers):
    runner = make_runner(tmp_path)
    dataset = DrawDataset(pipeline=[DrawIndex()])
    runner._train_dataloader = loader_of(dataset, num_workers=workers)
    with pytest.raises(RuntimeError, match=r"add dict\(type='DrawIndexHook'\) to the custom_hooks"):
        runner.train()
