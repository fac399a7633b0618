"""Hook that shows the course of a run on the screen: what runs, how far it is, and its scores."""

import time
from datetime import timedelta

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..evaluation.score_table import score_line, score_table
from ..progress import Progress
from .screen import show


class ScreenHook(Hook):
    """Shows a progress bar and scores; for commands that keep the log off the screen.

    Runs last, when other hooks have added their scores.
    """

    priority = 'LOWEST'

    @master_only
    def before_train(self, runner: Runner) -> None:
        """Say what is trained."""
        sizes = [(p.numel(), p.requires_grad) for p in runner.model.parameters()]
        trained = sum(size for size, trains in sizes if trains)
        self._since = time.monotonic()
        epochs = f' in {runner.max_epochs} epochs' if runner.max_epochs > 1 else ''
        total = sum(size for size, _ in sizes)
        print(f'{runner.max_iters} steps{epochs}; {trained:,} of {total:,} parameters train')
        self._progress = Progress('training', runner.max_iters, runner.iter)

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Move the bar."""
        losses = runner.message_hub.log_scalars.get('train/loss')  # already on the CPU
        loss = f', loss {losses.current():.3f}' if losses else ''
        self._progress.move(f'epoch {runner.epoch + 1}{loss}')

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Say what was written."""
        self._progress.close()
        took = timedelta(seconds=round(time.monotonic() - self._since))
        last = runner.message_hub.runtime_info.get('last_ckpt')
        print(f'trained in {took}' + (f'; checkpoint: {last}' if last else ''))

    @master_only
    def before_test_epoch(self, runner: Runner) -> None:
        """Start a bar."""
        title = getattr(runner.test_loop, 'condition', 'testing')
        self._tested = Progress(title, len(runner.test_dataloader))

    @master_only
    def before_val_epoch(self, runner: Runner) -> None:
        """Start a bar."""
        self._tested = Progress('validating', len(runner.val_dataloader))

    @master_only
    def after_val_iter(self, runner: Runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Move the bar."""
        self._tested.move()

    after_test_iter = after_val_iter

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Show the main scores."""
        self._tested.close()
        show(f'epoch {runner.epoch}: {score_line(metrics or {})}')

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Show all scores of a test, or the main ones of one of several conditions."""
        self._tested.close()
        condition = getattr(runner.test_loop, 'condition', None)
        if condition is None:
            print(score_table(metrics or {}))
        else:
            print(f'{condition:24}{score_line(metrics or {})}')
