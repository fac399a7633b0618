"""VoVNet with effective squeeze-and-excitation, the image backbone of CMT's large model.

The network is VoVNetV2 from "CenterMask: Real-Time Anchor-Free Instance Segmentation" (Lee and
Park, CVPR 2020): a stem of stride 4 and four stages of one-shot aggregation (OSA) blocks. Module
names are those of the published weights, so that checkpoints of DETR3D, PETR and CMT load
completely.

Shapes: B images, C channels, H and W rows and columns of the image.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmdet3d.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional

from ..freezing import FreezePolicy, freeze

FIRST_STAGE = 2  # the published names count the stem as stage 1


@dataclass(frozen=True)
class VoVNetSpec:
    """A published variant; tuples over stages range from stage 2 to stage 5."""

    stem_channels: tuple[int, int, int]
    conv_channels: tuple[int, int, int, int]
    out_channels: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]
    layers_per_block: int
    depthwise: bool = False


_WIDE = dict(conv_channels=(128, 160, 192, 224), out_channels=(256, 512, 768, 1024))
_SLIM = dict(conv_channels=(64, 80, 96, 112), out_channels=(112, 256, 384, 512))
_V19 = dict(blocks=(1, 1, 1, 1), layers_per_block=3)
_DENSE_STEM = dict(stem_channels=(64, 64, 128))
_DEPTHWISE = dict(stem_channels=(64, 64, 64), depthwise=True)

SPECS = {
    'V-19-slim-dw-eSE': VoVNetSpec(**_DEPTHWISE, **_SLIM, **_V19),
    'V-19-dw-eSE': VoVNetSpec(**_DEPTHWISE, **_WIDE, **_V19),
    'V-19-slim-eSE': VoVNetSpec(**_DENSE_STEM, **_SLIM, **_V19),
    'V-19-eSE': VoVNetSpec(**_DENSE_STEM, **_WIDE, **_V19),
    'V-39-eSE': VoVNetSpec(**_DENSE_STEM, **_WIDE, blocks=(1, 1, 2, 2), layers_per_block=5),
    'V-57-eSE': VoVNetSpec(**_DENSE_STEM, **_WIDE, blocks=(1, 1, 4, 3), layers_per_block=5),
    'V-99-eSE': VoVNetSpec(**_DENSE_STEM, **_WIDE, blocks=(1, 3, 9, 3), layers_per_block=5),
}


def conv_norm_relu(
    name: str, in_channels: int, out_channels: int, kernel: int, stride: int = 1
) -> OrderedDict[str, nn.Module]:
    """A dense convolution, its norm and ReLU, under the names of the published weights."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False)
    return OrderedDict(
        {
            f'{name}/conv': conv,
            f'{name}/norm': nn.BatchNorm2d(out_channels),
            f'{name}/relu': nn.ReLU(inplace=True),
        }
    )


def depthwise_norm_relu(
    name: str, in_channels: int, out_channels: int, stride: int = 1
) -> OrderedDict[str, nn.Module]:
    """A depthwise 3 x 3 and a pointwise 1 x 1 convolution, followed by one norm and ReLU."""
    depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, 1, groups=in_channels, bias=False)
    return OrderedDict(
        {
            f'{name}/dw_conv3x3': depthwise,
            f'{name}/pw_conv1x1': nn.Conv2d(in_channels, out_channels, 1, bias=False),
            f'{name}/pw_norm': nn.BatchNorm2d(out_channels),
            f'{name}/pw_relu': nn.ReLU(inplace=True),
        }
    )


class EffectiveSqueezeExcitation(nn.Module):
    """Scales each channel by a hard sigmoid of one linear layer over the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * functional.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))


class OSABlock(nn.Module):
    """One-shot aggregation block: a chain of layers whose input and outputs are concatenated once.

    Args:
        name: the block's name in the published weights, such as 'OSA2_1'.
        in_channels: channels of the input.
        conv_channels: channels of each layer of the chain.
        out_channels: channels after the aggregation.
        num_layers: length of the chain.
        residual: whether to add the input to the output; requires equal numbers of channels.
        depthwise: whether the chain consists of depthwise separable layers.
    """

    def __init__(
        self,
        *,
        name: str,
        in_channels: int,
        conv_channels: int,
        out_channels: int,
        num_layers: int,
        residual: bool,
        depthwise: bool,
    ) -> None:
        super().__init__()
        self.residual = residual
        chain_channels = in_channels
        if depthwise and in_channels != conv_channels:
            reduction = conv_norm_relu(f'{name}_reduction_0', in_channels, conv_channels, kernel=1)
            self.conv_reduction = nn.Sequential(reduction)
            chain_channels = conv_channels
        else:
            self.conv_reduction = nn.Identity()
        self.layers = nn.ModuleList()
        for i in range(num_layers):
            if depthwise:
                layer = depthwise_norm_relu(f'{name}_{i}', chain_channels, conv_channels)
            else:
                layer = conv_norm_relu(f'{name}_{i}', chain_channels, conv_channels, kernel=3)
            self.layers.append(nn.Sequential(layer))
            chain_channels = conv_channels
        joined = in_channels + num_layers * conv_channels
        self.concat = nn.Sequential(conv_norm_relu(f'{name}_concat', joined, out_channels, 1))
        self.ese = EffectiveSqueezeExcitation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        outputs = [x]
        y = self.conv_reduction(x)
        for layer in self.layers:
            y = layer(y)
            outputs.append(y)
        y = self.ese(self.concat(torch.cat(outputs, dim=1)))
        return y + x if self.residual else y


@MODELS.register_module()
class VoVNet(BaseModule):
    """VoVNetV2 (Lee and Park, CVPR 2020).

    Args:
        spec_name: a key of `SPECS`, such as 'V-99-eSE'.
        input_channels: channels of the image.
        out_features: the returned maps, of 'stem' and 'stage2' to 'stage5'. The stem and stage 2
            have stride 4; the stride doubles with each later stage. Nothing is computed beyond the
            last of these maps.
        num_stages: number of stages, at most four; the published weights have four.
        width: factor for all channel counts, which are rounded to a multiple of 8. 1 is the
            published network.
        frozen_stages: -1 freezes nothing, 0 the stem, n the stem and the first n stages, see
            :class:`~projects.cmt_aqr.freezing.FreezePolicy`.
        norm_eval: whether norms stay in evaluation mode through every `train()`, which is right for
            pretrained weights and wrong for training from scratch.
        init_cfg: mmengine initialisation; by default Kaiming for convolutions, 1 for norms.

    Raises:
        ValueError: unknown spec or output, or a stage number out of range.
    """

    def __init__(
        self,
        *,
        spec_name: str,
        input_channels: int = 3,
        out_features: Sequence[str] = ('stage4', 'stage5'),
        num_stages: int = 4,
        width: float = 1.0,
        frozen_stages: int = -1,
        norm_eval: bool = True,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or _default_init_cfg())
        if spec_name not in SPECS:
            raise ValueError(f'VoVNet spec_name {spec_name!r} is not one of {sorted(SPECS)}')
        spec = SPECS[spec_name]
        if not 1 <= num_stages <= len(spec.blocks):
            raise ValueError(f'VoVNet num_stages {num_stages} is not in 1 to {len(spec.blocks)}')
        self.stage_names = [f'stage{FIRST_STAGE + i}' for i in range(num_stages)]
        self.out_features = self._checked_outputs(out_features)
        self.norm_eval = norm_eval
        self._build_layers(spec, input_channels, width)
        freeze(self, FreezePolicy(frozen_stages=frozen_stages))

    def _checked_outputs(self, out_features: Sequence[str]) -> tuple[str, ...]:
        allowed = ['stem', *self.stage_names]
        unknown = [name for name in out_features if name not in allowed]
        if unknown or not out_features or isinstance(out_features, str):
            raise ValueError(
                f'VoVNet out_features {out_features!r} must be a list of one or more of {allowed}'
            )
        return tuple(name for name in allowed if name in out_features)

    def _build_layers(self, spec: VoVNetSpec, input_channels: int, width: float) -> None:
        first, second, third = (_scaled(c, width) for c in spec.stem_channels)
        later_stem_layer = depthwise_norm_relu if spec.depthwise else _dense3x3
        stem = conv_norm_relu('stem_1', input_channels, first, kernel=3, stride=2)
        stem.update(later_stem_layer('stem_2', first, second))
        stem.update(later_stem_layer('stem_3', second, third, stride=2))
        self.stem = nn.Sequential(stem)
        self.out_channels = {'stem': third}
        in_channels = third
        for i, name in enumerate(self.stage_names):
            out_channels = _scaled(spec.out_channels[i], width)
            stage = _build_stage(
                index=i,
                spec=spec,
                in_channels=in_channels,
                conv_channels=_scaled(spec.conv_channels[i], width),
                out_channels=out_channels,
            )
            self.add_module(name, stage)
            self.out_channels[name] = in_channels = out_channels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The feature maps of `out_features`, finest first.

        Args:
            x: images (B, input_channels, H, W), normalised.

        Returns:
            One (B, C, h, w) per output; h is H / stride, rounded up by convolutions and pooling.
        """
        outputs = []
        for name in ('stem', *self.stage_names):
            x = getattr(self, name)(x)
            if name in self.out_features:
                outputs.append(x)
            if name == self.out_features[-1]:
                break
        return tuple(outputs)


def _build_stage(
    *, index: int, spec: VoVNetSpec, in_channels: int, conv_channels: int, out_channels: int
) -> nn.Sequential:
    """Stage 2 + `index`: OSA blocks, after a pooling of stride 2 unless `index` is 0."""
    stage = nn.Sequential()
    if index > 0:
        stage.add_module('Pooling', nn.MaxPool2d(kernel_size=3, stride=2, ceil_mode=True))
    for block in range(spec.blocks[index]):
        name = f'OSA{FIRST_STAGE + index}_{block + 1}'
        osa = OSABlock(
            name=name,
            in_channels=in_channels if block == 0 else out_channels,
            conv_channels=conv_channels,
            out_channels=out_channels,
            num_layers=spec.layers_per_block,
            residual=block > 0,
            depthwise=spec.depthwise,
        )
        stage.add_module(name, osa)
    return stage


def _dense3x3(
    name: str, in_channels: int, out_channels: int, stride: int = 1
) -> OrderedDict[str, nn.Module]:
    return conv_norm_relu(name, in_channels, out_channels, kernel=3, stride=stride)


def _scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 and at least 8; unchanged at 1."""
    return channels if width == 1 else max(8, round(channels * width / 8) * 8)


def _default_init_cfg() -> list[dict]:
    return [
        dict(type='Kaiming', layer='Conv2d'),
        dict(type='Constant', val=1, layer='_BatchNorm'),
    ]
