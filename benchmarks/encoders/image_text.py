"""Pretraining of a vision encoder on pairs of images and phrases, with the sigmoid loss of SigLIP.

A phrase is a class, a third of the image and a distance, such as "bus, left, far"; it is true of an
image if a token of that third sees such a box. The text encoder sums a learned vector for each word
and applies an MLP. Loss: "Sigmoid Loss for Language Image Pre-Training", Zhai et al., ICCV 2023.

Shapes: B samples, V cameras, P phrases, C channels, h x w tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from mmdet3d.registry import MODELS
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn
from torch.nn import functional

from projects.cmt_aqr.pretraining import IGNORED, ImageTokenPretrainer, TokenTargets

PLACES = 3  # left, middle, right
DISTANCES = 2  # near, far
FAR = math.log(12.0)  # metres


@MODELS.register_module()
class ImageTextPretrainer(ImageTokenPretrainer):
    """The image branch with a text encoder; it learns which phrases are true of an image.

    Takes the arguments of `ImageTokenPretrainer`, whose dense head is not trained.
    """

    def __init__(self, **options) -> None:
        super().__init__(**options)
        channels = self.img_neck.out_channels
        del self.token_head
        self.words = nn.ModuleList(
            nn.Embedding(count, channels) for count in (self.num_classes, PLACES, DISTANCES)
        )
        self.text = nn.Sequential(
            nn.Linear(channels, channels), nn.GELU(), nn.Linear(channels, channels)
        )
        self.attention = nn.Linear(channels, 1)
        self.scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def loss(
        self, batch_inputs_dict: Mapping, batch_data_samples: Sequence[Det3DDataSample]
    ) -> dict[str, Tensor]:
        """``loss_image_text`` and ``phrases_found``, the mean rank accuracy of true phrases."""
        maps = self.extract_feat(batch_inputs_dict)
        image_shape = tuple(batch_inputs_dict['imgs'].shape[-2:])
        targets = self._targets(batch_data_samples, maps, image_shape)
        true = phrases_of(targets, maps.shape[-1], self.num_classes).flatten(0, 1)
        logits = self._logits(maps.flatten(0, 1))
        signs = 2 * true - 1
        loss = -functional.logsigmoid(signs * logits).sum(dim=1).mean()
        above = (logits[:, :, None] > logits[:, None, :]).float()
        pairs = true[:, :, None] * (1 - true[:, None, :])
        found = (above * pairs).sum() / pairs.sum().clamp(min=1)
        return {'loss_image_text': loss, 'phrases_found': found.detach()}

    def _logits(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, P): agreement of images, pooled by attention, with all phrases."""
        tokens = maps.flatten(2).transpose(1, 2)
        image = (self.attention(tokens).softmax(dim=1) * tokens).sum(dim=1)
        by_class, by_place, by_distance = (word.weight for word in self.words)
        phrases = by_class[:, None, None] + by_place[:, None] + by_distance
        text = self.text(phrases.flatten(0, 2))
        cosine = functional.normalize(image, dim=1) @ functional.normalize(text, dim=1).T
        return self.scale.exp() * cosine + self.bias


def phrases_of(targets: TokenTargets, columns: int, num_classes: int) -> Tensor:
    """(B, V, P), 1 for each phrase that is true, from the targets (B, V, h * w) of all tokens."""
    labels, distant = targets.labels, (targets.log_depths > FAR).long()
    index = torch.arange(labels.shape[-1], device=labels.device) % columns
    place = (index * PLACES // columns).expand_as(labels)
    phrase = (labels * PLACES + place) * DISTANCES + distant
    count = num_classes * PLACES * DISTANCES
    is_box = (labels != IGNORED) & (labels != num_classes)
    phrase = phrase.where(is_box, count)
    true = torch.zeros(*labels.shape[:-1], count + 1, device=labels.device)
    return true.scatter(-1, phrase, 1.0)[..., :count]
