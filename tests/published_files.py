"""State dicts and files as others publish them, made from a model of this project."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from mmdet3d.structures import Det3DDataSample
from torch import Tensor, nn

SPARSE_PART = 'pts_middle_encoder.'
TRANSFORMER = 'pts_bbox_head.transformer.'
ROUTER = f'{TRANSFORMER}encoder.layers.0.'
OF_LIDAR = ('pts_middle_encoder.', 'pts_backbone.', 'pts_neck.', 'pts_bbox_head.shared_conv.')
OF_CAMERA = ('img_backbone.', 'img_neck.', 'pts_bbox_head.rv_embedding.')
_BRANCHES = 'pts_bbox_head.task_heads.'


def released_shapes(reference: Path, name: str) -> dict[str, list[int]]:
    """Keys and shapes of a released CMT: ``r50`` or ``vov`` of both sensors, ``lidar``, ``camera``.

    The lists of the latter two follow from that of ``vov``, for their code builds the same parts
    but those of the other sensor, and the branches of ``lidar`` with kernels of 3.
    """
    both = name if name in ('r50', 'vov') else 'vov'
    shapes = json.loads((reference / f'cmt_{both}_state_dict.json').read_text())
    if name == 'camera':
        return {key: shape for key, shape in shapes.items() if not key.startswith(OF_LIDAR)}
    if name == 'lidar':
        return {
            key: [*shape[:2], 3] if key.startswith(_BRANCHES) and len(shape) == 3 else shape
            for key, shape in shapes.items()
            if not key.startswith(OF_CAMERA)
        }
    return shapes


def fill_at_random(model: nn.Module) -> nn.Module:
    """Random weights and statistics of norms, all of which a half holds exactly."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith('num_batches_tracked'):
                value.fill_(7)
                continue
            noise = torch.rand_like(value)
            if 'running_var' in name or value.dim() == 1:
                noise = 0.5 + noise
            elif 'reference_points' not in name:
                noise = (2 * noise - 1) * (3 / (value.numel() / len(value))) ** 0.5
            value.copy_(noise.half())
    return model


def as_spconv1(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with the kernels of spconv 1, (kz, ky, kx, in, out)."""
    return {
        name: value.permute(1, 2, 3, 4, 0)
        if name.startswith(SPARSE_PART) and value.dim() == 5
        else value
        for name, value in state.items()
    }


def as_mome(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a CMT with what MoME adds to it, named as MoME does."""
    channels = state['pts_bbox_head.transformer.decoder.post_norm.weight'].numel()
    square = (channels, channels)
    shapes = {
        f'{ROUTER}attentions.0.attn.in_proj_weight': (3 * channels, channels),
        f'{ROUTER}attentions.0.attn.in_proj_bias': (3 * channels,),
        f'{ROUTER}attentions.0.attn.out_proj.weight': square,
        f'{ROUTER}attentions.0.attn.out_proj.bias': (channels,),
        f'{ROUTER}ffns.0.layers.0.0.weight': (4 * channels, channels),
        f'{ROUTER}ffns.0.layers.0.0.bias': (4 * channels,),
        f'{ROUTER}ffns.0.layers.1.weight': (channels, 4 * channels),
        f'{ROUTER}ffns.0.layers.1.bias': (channels,),
        f'{TRANSFORMER}selected_cls.weight': (3, channels),
        f'{TRANSFORMER}selected_cls.bias': (3,),
        f'{TRANSFORMER}bev_type_embed': (channels,),
        f'{TRANSFORMER}rv_type_embed': (channels,),
    }
    for norm in (f'{ROUTER}norms.0', f'{ROUTER}norms.1', f'{TRANSFORMER}encoder.post_norm'):
        shapes |= {f'{norm}.weight': (channels,), f'{norm}.bias': (channels,)}
    for index in (0, 2, 4):
        inputs = channels if index else 16
        shapes[f'{TRANSFORMER}cam_embed.{index}.weight'] = (channels, inputs, 1)
        shapes[f'{TRANSFORMER}cam_embed.{index}.bias'] = (channels,)
        for name in ('weight', 'bias', 'running_mean', 'running_var'):
            shapes[f'{TRANSFORMER}cam_embed.{index + 1}.{name}'] = (channels,)
        shapes[f'{TRANSFORMER}cam_embed.{index + 1}.num_batches_tracked'] = ()
    return {**state, **{name: 0.1 * torch.randn(shape) for name, shape in shapes.items()}}


def save(path: Path, state: Mapping[str, Tensor], *, form: str = 'state_dict') -> Path:
    """Write weights as a file: ``bare``, or under an entry with other things beside it.

    With ``module`` in its form, the names are those of a wrapped model.
    """
    if 'module' in form:
        state, form = {f'module.{name}': value for name, value in state.items()}, 'state_dict'
    content = dict(state)
    if form != 'bare':
        optimizer = {'state': {0: {'exp_avg': torch.ones(2)}}, 'param_groups': [{'lr': 1e-4}]}
        content = {'meta': {'epoch': 20}, form: content, 'optimizer': optimizer}
    torch.save(content, path)
    return path


def answer(model: nn.Module) -> list[Tensor]:
    """Outputs of a detector of 51.2 m around it for a fixed cloud and two fixed images."""
    draw = torch.Generator().manual_seed(0)
    limits = torch.tensor([25.0, 25.0, 2.5, 255.0, 0.5])
    points = (torch.rand(600, 5, generator=draw) * 2 - 1) * limits
    images = torch.randint(0, 255, (2, 3, 64, 176), generator=draw, dtype=torch.uint8)
    looks_along_x = torch.tensor(
        [[88.0, -100, 0, 0], [32, 0, -100, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64
    )
    sample = Det3DDataSample(metainfo={'lidar2img': torch.stack([looks_along_x] * 2).numpy()})
    inputs = {'points': [points], 'img': [images]}
    modalities = {'points': 'lidar', 'img': 'camera'}
    known = {n: v for n, v in inputs.items() if modalities[n] in model.pts_bbox_head.modalities}
    model.eval()
    data = model.data_preprocessor({'inputs': known, 'data_samples': [sample]})
    with torch.no_grad():
        (task,) = model(**data, mode='tensor')
    return [*task.values()]
