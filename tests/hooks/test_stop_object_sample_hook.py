"""The last epochs paste nothing, whoever loads their samples and whenever they begin."""

import pytest
import torch
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from mmengine.runner import IterBasedTrainLoop
from toy_runner import make_runner

from projects.cmt_aqr.datasets.object_sampling import JointObjectSample
from projects.cmt_aqr.hooks import StopObjectSampleHook

WORKERS = dict(num_workers=2, persistent_workers=True)
ALONE = dict(num_workers=0)


class Paste(JointObjectSample):
    """Notes whether it would paste."""

    def __init__(self) -> None:
        self._stopped = torch.zeros(1, dtype=torch.bool)

    def transform(self, results: dict) -> dict:
        return dict(results, pasted=not self._stopped)


@DATASETS.register_module()
class PasteDataset(BaseDataset):
    """Three samples, each of which says whether objects were pasted."""

    def load_data_list(self) -> list[dict]:
        return [dict(sample_idx=i) for i in range(3)]

    def __getitem__(self, index: int) -> dict:
        pasted = torch.tensor([float(super().__getitem__(index)['pasted'])])
        return dict(inputs=pasted, data_samples=pasted)


def train(tmp_path, *, last=2, loader=ALONE, epochs=4, **options):
    """What the samples of each epoch say."""
    seen = {}

    class Seeing(StopObjectSampleHook):
        priority = 'LOWEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            (seen[runner.epoch],) = set(data_batch['inputs'].flatten().tolist())

    hook = Seeing(num_last_epochs=last)
    runner = make_runner(tmp_path, epochs=epochs, custom_hooks=[hook], **options)
    runner._train_dataloader = dict(
        dataset=PasteDataset(pipeline=[Paste()]),
        batch_size=3,
        sampler=dict(type='DefaultSampler', shuffle=True),
        collate_fn=dict(type='default_collate'),
        **loader,
    )
    runner.train()
    # Ended here: workers that are left to the garbage collector take five seconds each to end.
    runner.train_dataloader._iterator = None
    return [seen[epoch] for epoch in sorted(seen)]


@pytest.mark.parametrize(
    ('loader', 'last', 'pasted'),
    [
        (WORKERS, 2, [1, 1, 0, 0]),
        (ALONE, 2, [1, 1, 0, 0]),
        (ALONE, 0, [1, 1, 1, 1]),
        (ALONE, 9, [0, 0, 0, 0]),
    ],
)
def test_the_last_epochs_paste_nothing(tmp_path, loader, last, pasted):
    assert train(tmp_path, loader=loader, last=last) == pasted


def test_a_run_that_resumes_among_the_last_epochs_pastes_nothing(tmp_path):
    assert train(tmp_path, epochs=3, last=0) == [1, 1, 1]
    assert train(tmp_path, epochs=5, last=4, resume=True) == [0, 0]


def test_a_run_that_counts_no_epochs_is_refused(tmp_path):
    runner = make_runner(tmp_path, custom_hooks=[StopObjectSampleHook(num_last_epochs=1)])
    runner._train_dataloader = dict(
        dataset=PasteDataset(pipeline=[Paste()]),
        batch_size=3,
        sampler=dict(type='InfiniteSampler'),
        collate_fn=dict(type='default_collate'),
    )
    runner._train_loop = IterBasedTrainLoop(runner, runner._train_dataloader, max_iters=2)
    with pytest.raises(ValueError, match='by the epoch, which IterBasedTrainLoop does not count'):
        runner.train()


def test_a_negative_number():
    with pytest.raises(ValueError, match='num_last_epochs is -1; it must be at least 0'):
        StopObjectSampleHook(num_last_epochs=-1)
