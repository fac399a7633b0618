"""A detector that is told for each query which sensors to decode: an upper bound for routing.

Shapes: D decodings, B batch, Q queries, N annotated boxes.
"""

from collections.abc import Mapping, Sequence

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from nuscenes.eval.detection.config import config_factory
from torch import Tensor

from projects.cmt_aqr.aqr import Tokens
from projects.cmt_aqr.detector import CmtDetector
from projects.cmt_aqr.matching.box_coder import decode_boxes
from projects.cmt_aqr.task_head import CLASS_BRANCH

DISTANCES = config_factory('detection_cvpr_2019').dist_ths
"""metres; the thresholds of nuScenes' mAP"""


@MODELS.register_module()
class BestDecodingDetector(CmtDetector):
    """Predicts each query from both sensors, LiDAR alone or cameras alone: whichever is best.

    The annotations choose, so this is no detector but the most that a choice among decodings could
    give one query at a time. Needs a head with one task, and ``eval_ann_info`` in the samples.
    """

    def predict(
        self, batch_inputs_dict: Mapping, batch_data_samples: Sequence[Det3DDataSample]
    ) -> Sequence[Det3DDataSample]:
        """Fills ``pred_instances_3d`` of each sample, as :meth:`CmtDetector.predict` does."""
        head = self.pts_bbox_head
        metas = [sample.metainfo for sample in batch_data_samples]
        head.training = head.all_combinations = True  # the head alone: its parts stay in eval mode
        output = head(*self.extract_feat(batch_inputs_dict), metas, all_layers=False)
        head.training = False
        decodings = [task for (task,) in (output.tasks, *output.alone.values())]
        if _blind(output.tokens):
            decodings = decodings[:1]
        stacked = {name: torch.stack([d[name][-1] for d in decodings]) for name in decodings[0]}
        gain = gains(
            decode_boxes(head.box_coder.join(stacked)), stacked[CLASS_BRANCH], batch_data_samples
        )
        best = gain.argmax(dim=0)[None, ..., None]  # the first of equals, which is the common one
        chosen = {
            name: value.gather(0, best.expand(1, -1, -1, value.shape[-1]))
            for name, value in stacked.items()
        }
        results = head.boxes(output._replace(tasks=[chosen]), metas)
        return self.add_pred_to_datasample(batch_data_samples, results)


def _blind(tokens: Tokens) -> bool:
    """Whether a sample has no camera at all, so that its images cannot be decoded alone."""
    mask = tokens.token_mask
    return mask is not None and not mask[:, tokens.layout.lidar_tokens :].any(dim=1).all()


def gains(boxes: Tensor, logits: Tensor, samples: Sequence[Det3DDataSample]) -> Tensor:
    """(D, B, Q): what a query contributes to mAP, as far as one query alone can tell.

    That is the score of an annotated class times the share of :data:`DISTANCES` within which an
    object of that class lies, for the best such object; without any, its highest score, negative.

    Args:
        boxes: (D, B, Q, 9), x and y first, metres.
        logits: (D, B, Q, classes).
        samples: of the batch, with ``eval_ann_info``.
    """
    scores = logits.sigmoid()
    columns = []
    for index, sample in enumerate(samples):
        truth = sample.eval_ann_info
        centres = truth['gt_bboxes_3d'].gravity_center[:, :2].to(boxes)
        labels = torch.as_tensor(truth['gt_labels_3d'], dtype=torch.long, device=boxes.device)
        known = labels >= 0
        distance = torch.cdist(boxes[:, index, :, :2], centres[known])
        share = sum(distance <= limit for limit in DISTANCES) / len(DISTANCES)
        hits = (share * scores[:, index][..., labels[known]]).flatten(2)
        best = torch.cat([hits, hits.new_zeros(*hits.shape[:2], 1)], dim=-1).amax(dim=-1)
        columns.append(torch.where(best > 0, best, -scores[:, index].amax(dim=-1)))
    return torch.stack(columns, dim=1)
