"""MMDetection3D's visualization hook, drawing what the model was fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdet3d.engine import Det3DVisualizationHook
from mmdet3d.registry import HOOKS
from mmdet3d.structures import Det3DDataSample
from mmengine.runner import Runner

from ..samples import sample_name
from ..visualization.visualizer import FrameVisualizer


@HOOKS.register_module(name='Det3DVisualizationHook', force=True)
class FedVisualizationHook(Det3DVisualizationHook):
    """Replaces MMDetection3D's hook under its name where the visualizer is a `FrameVisualizer`.

    MMDetection3D's reads the files of a sample again, so it would show a sound frame where a
    failure damaged it, and boxes projected for images of another size. This one draws the batch.
    With another visualizer it is MMDetection3D's. The arguments are the same; those of
    `FrameVisualizer.add_datasample` that have no effect have none here.
    """

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[Det3DDataSample]
    ) -> None:
        """Draw the first sample of every ``interval``-th batch for the visualizer's backends."""
        if not isinstance(self._visualizer, FrameVisualizer):
            super().after_val_iter(runner, batch_idx, data_batch, outputs)
        elif self.draw and (runner.iter + batch_idx) % self.interval == 0:
            self._draw('val sample', data_batch, outputs, 0, step=runner.iter + batch_idx)

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict, outputs: Sequence[Det3DDataSample]
    ) -> None:
        """Draw every sample: into ``test_out_dir`` of the log folder, or for the backends."""
        if not isinstance(self._visualizer, FrameVisualizer):
            super().after_test_iter(runner, batch_idx, data_batch, outputs)
        elif self.draw:
            for index, sample in enumerate(outputs):
                self._test_index += 1
                file = None
                if self.test_out_dir is not None:
                    folder = Path(runner.work_dir, runner.timestamp, self.test_out_dir)
                    file = str(folder / f'{sample_name(sample)}.png')
                self._draw('test sample', data_batch, outputs, index, self._test_index, file)

    def _draw(
        self,
        name: str,
        data_batch: Mapping,
        outputs: Sequence[Det3DDataSample],
        index: int,
        step: int,
        file: str | None = None,
    ) -> None:
        """Draw one sample of a batch."""
        self._visualizer.add_datasample(
            name,
            {key: values[index] for key, values in data_batch['inputs'].items()},
            outputs[index],
            draw_gt=self.draw_gt,
            draw_pred=self.draw_pred,
            show=self.show,
            out_file=file,
            pred_score_thr=self.score_thr,
            step=step,
        )
