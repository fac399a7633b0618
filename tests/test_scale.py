"""What long trainings on many GPUs are made with, on a model of two numbers."""

import os

import pytest
import torch
from mmengine.fileio import LocalBackend
from toy_runner import make_runner

WEIGHTS = ('state_dict', 'optimizer')


def all_at_once(work_dir, **options):
    """A run with averaged weights, accumulated gradients and activation checkpointing."""
    runner = make_runner(
        work_dir,
        epochs=3,
        custom_hooks=[dict(type='EMAHook', momentum=0.5)],
        **options,
    )
    runner.cfg.activation_checkpointing = ['line']
    runner.optim_wrapper['accumulative_counts'] = 2
    return runner


def test_averaging_accumulation_and_checkpointing_resume_to_the_same(tmp_path):
    all_at_once(tmp_path / 'whole').train()
    half_way = str(tmp_path / 'whole' / 'epoch_2.pth')
    all_at_once(tmp_path / 'resumed', load_from=half_way, resume=True).train()
    whole, resumed = (torch.load(tmp_path / run / 'epoch_3.pth') for run in ('whole', 'resumed'))
    for part in (*WEIGHTS, 'ema_state_dict'):
        torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
    # Saved are the averaged weights as the model's, and the model's as those of the average.
    averaged, last = whole['state_dict'], whole['ema_state_dict']
    assert averaged['line.weight'] != last['module.line.weight']
    (step,) = {state['step'].item() for state in whole['optimizer']['state'].values()}
    assert step == 3  # of six batches


class KilledError(Exception):
    """In place of a signal."""


@pytest.mark.parametrize('share', [0.0, 0.5], ids=['before a byte', 'half-way'])
def test_a_run_killed_in_the_middle_of_a_checkpoint_resumes_from_the_last_whole(
    tmp_path, monkeypatch, share
):
    make_runner(tmp_path / 'whole', epochs=3).train()

    put = LocalBackend.put

    def die(backend, content: bytes, path: str) -> None:
        if os.path.basename(path) == 'epoch_2.pth':
            put(backend, content[: int(share * len(content))], path)
            raise KilledError
        put(backend, content, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalBackend, 'put', die)
        with pytest.raises(KilledError):
            make_runner(tmp_path / 'killed', epochs=3).train()
    assert (tmp_path / 'killed' / 'epoch_2.pth').is_file()

    make_runner(tmp_path / 'killed', epochs=3, resume=True).train()
    for epoch in (2, 3):
        whole, resumed = (
            torch.load(tmp_path / run / f'epoch_{epoch}.pth') for run in ('whole', 'killed')
        )
        for part in WEIGHTS:
            torch.testing.assert_close(resumed[part], whole[part], rtol=0, atol=0)
