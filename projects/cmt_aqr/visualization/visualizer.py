"""Visualizer for MMDetection3D's hooks and tools that needs no screen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmdet3d.registry import VISUALIZERS
from mmdet3d.structures import Det3DDataSample
from mmengine.dist import master_only
from mmengine.visualization import Visualizer

from ..samples import sample_name
from .drawing import save
from .frame import render_views
from .frame_view import fed_view, paths_of, predictions_of, truth_of
from .movie import pixels
from .scene_boxes import AGAINST_TRUTH, compare


@VISUALIZERS.register_module()
class FrameVisualizer(Visualizer):
    """Draws all cameras and the scene from above, as the model is fed them.

    It takes the arguments of mmengine's `Visualizer`, and logs as that does.
    """

    @classmethod
    def get_instance(cls, name: str = 'visualizer', **kwargs: Any) -> FrameVisualizer:
        """The instance of this name, made if there is none.

        The Runner gives the name of its experiment. A fixed name in a config would make a second
        Runner of a process log into the folder of the first.
        """
        return super().get_instance(name, **kwargs)

    @master_only
    def add_datasample(
        self,
        name: str,
        data_input: Mapping,
        data_sample: Det3DDataSample,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        o3d_save_path: str | None = None,
        vis_task: str = 'multi-modality_det',
        pred_score_thr: float = 0.3,
        step: int = 0,
        show_pcd_rgb: bool = False,
    ) -> None:
        """Draw a packed sample into a file, or hand the picture to the backends.

        The arguments are those of `Det3DLocalVisualizer`. The inputs must be those of the model:
        ``points`` and ``img`` as the pipeline packs them. ``wait_time``, ``o3d_save_path``,
        ``vis_task`` and ``show_pcd_rgb`` have no effect: there is one picture, without a window.

        Raises:
            ValueError: ``show`` is true.
        """
        if show:
            raise ValueError(
                'FrameVisualizer opens no window, it writes files: give --show-dir FOLDER to '
                'test.py, or --not-show --output-dir FOLDER to browse_dataset.py'
            )
        classes = self.dataset_meta['classes']
        truth = truth_of(data_sample, classes) if draw_gt else None
        boxes = truth or []
        if draw_pred and 'pred_instances_3d' in data_sample:
            boxes = predictions_of(data_sample, classes, pred_score_thr)
            if truth is not None:
                boxes = compare(truth, boxes, AGAINST_TRUTH)
        paths = paths_of(data_input, data_sample) if draw_pred else {}
        view = fed_view(data_input, data_sample)._replace(boxes=boxes, paths=paths)
        figure = render_views({'': view}, title=f'frame {sample_name(data_sample)}')
        if out_file is None:
            self.add_image(name, pixels(figure), step)
        else:
            save(figure, Path(out_file))
