"""Hook that keeps the learned scales of routing forms in their range."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..running_hooks import note_running
from ..transformer import RoutingForm


@HOOKS.register_module()
class BiasScaleHook(Hook):
    """Clamps the scales of every routing form to their range after each training iteration.

    A model with learned scales does not train without it. It runs before the checkpoint hook, so
    that no scale outside its range is ever saved.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Note on the model that the hook runs."""
        note_running(runner.model, BiasScaleHook.__name__)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Clamp the scales of all routing forms in the model."""
        for module in runner.model.modules():
            if isinstance(module, RoutingForm):
                module.clamp_scales_()
