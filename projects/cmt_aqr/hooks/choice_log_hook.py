"""Log the experts and layers that the gates of a neck choose."""

import logging

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..necks import ChoiceCounter


@HOOKS.register_module()
class ChoiceLogHook(Hook):
    """Logs the share of every option that a :class:`ChoiceCounter` of the model counts.

    The log has ``expert_0``, ``expert_1``, ..., the load of each expert, and ``layer_0``, ..., how
    often each layer was chosen, since the last record; in distributed runs, by the main process.
    An expert with less than a tenth of an equal load is dead: it gives one warning a run.

    Args:
        interval: training iterations between two records.

    Raises:
        ValueError: an interval below 1.
    """

    def __init__(self, *, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'interval {interval} starts at 1')
        self.interval = interval
        self._warned = False

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the shares to the log."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        for name, counter in runner.model.named_modules():
            if isinstance(counter, ChoiceCounter):
                shares = counter.take()
                for i, share in enumerate(shares):
                    runner.message_hub.update_scalar(f'train/{counter.option}_{i}', share)
                if counter.option == 'expert' and any(shares):
                    self._warn_of_dead(name.rpartition('.')[0], shares)

    def _warn_of_dead(self, name: str, shares: list[float]) -> None:
        dead = [i for i, share in enumerate(shares) if share < 0.1 / len(shares)]
        if dead and not self._warned:
            self._warned = True
            print_log(
                f'experts {", ".join(map(str, dead))} of {name} get less than a tenth of an equal '
                f'load (shares {", ".join(f"{share:.3f}" for share in shares)}): raise its '
                'balance_weight or noise, or use fewer experts',
                logger='current',
                level=logging.WARNING,
            )
