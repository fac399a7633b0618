"""Keep the scales of attention biases in their range."""

from mmdet3d.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..aqr import AttentionBiasGenerator
from ..running_hooks import note_running


@HOOKS.register_module()
class BiasScaleHook(Hook):
    """Project the scales of every ``AttentionBiasGenerator`` after each training iteration.

    A model with learnable scales does not train without it. It runs before the checkpoint hook, so
    that no scale outside its range is ever saved.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Let the model know that its scales are kept in their range."""
        note_running(runner.model, BiasScaleHook.__name__)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Put the scales back, wherever in the model they are."""
        for module in runner.model.modules():
            if isinstance(module, AttentionBiasGenerator):
                module.project_scales()
