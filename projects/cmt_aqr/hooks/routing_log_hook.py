"""Log where queries look, and what the router makes of it.

Shapes: L decoder layers, H heads, Q queries.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..aqr import AttentionBiasGenerator, TokenLayout
from ..head import MODALITIES, CmtHead
from ..transformer import AttentionGate, AttentionMix, Routing, TokenGroups

# A bias moves a query-head pair's attention noticeably only where both sensors have some of it.
LEVERAGE_LIMITS = (0.05, 0.95)
# Of the limit of a bias, from which share on it counts as clamped: tanh never quite reaches 1.
CLAMPED_FROM = 0.99


class AttentionFigures(NamedTuple):
    """Where the queries of one batch look, by layer and head (L, H)."""

    lidar_mass: Tensor
    """mean share of LiDAR tokens in the attention, after the router's bias, gate or mix"""
    gap: Tensor
    """median of |log of the LiDAR share - log of the camera share|: for a bias, the difference of
    the log-sum-exps of the logits, with the bias"""
    leverage: Tensor
    """share of queries whose LiDAR mass lies within :data:`LEVERAGE_LIMITS`"""


class _Watch:
    """Records the routing of every forward pass of a head until it is closed."""

    def __init__(self, head: CmtHead) -> None:
        self.routings: list[AttentionFigures] = []
        self.weights: list[Tensor] = []
        self.clamped: list[Tensor] = []
        self._groups: TokenGroups | None = None
        self._layers: list[Tensor] = []
        attentions = [layer.attentions[1].attn for layer in head.transformer.layers]
        self._handles: list[RemovableHandle] = [
            head.register_forward_pre_hook(self._start),
            *(
                attention.register_forward_hook(self._attended, with_kwargs=True)
                for attention in attentions
            ),
            head.register_forward_hook(self._finish),
        ]
        if head.aqr_weight_generator is not None:
            self._handles.append(head.aqr_weight_generator.register_forward_hook(self._weighed))
        if head.attention_bias_generator is not None:
            self._handles.append(head.attention_bias_generator.register_forward_hook(self._asked))

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _start(self, head: CmtHead, inputs: tuple) -> None:
        bev, images = inputs[:2]
        both = bev is not None and images is not None
        layout = TokenLayout.of(bev, images)
        self._groups = layout.groups('modality', bev.device) if both else None
        self._layers = []

    def _attended(self, attention: nn.Module, inputs: tuple, options: dict, out: Tensor) -> None:
        if self._groups is not None:
            query, key = inputs[:2]
            mass = attention.mass(query, key, self._groups, **options).float()
            self._layers.append(mass.transpose(0, 1).flatten(1, 2))  # (H, B * Q, 2)

    def _finish(self, head: CmtHead, inputs: tuple, outputs: list) -> None:
        if self._groups is None:
            return
        mass = torch.stack(self._layers)  # (L, H, B * Q, 2)
        lidar = mass[..., 0]
        low, high = LEVERAGE_LIMITS
        # Shares below the smallest number count as that number: gaps end at 87.
        logs = mass.clamp(min=torch.finfo(mass.dtype).tiny).log()
        self.routings.append(
            AttentionFigures(
                lidar_mass=lidar.mean(dim=-1).cpu(),
                gap=(logs[..., 0] - logs[..., 1]).abs().median(dim=-1).values.cpu(),
                leverage=((lidar > low) & (lidar < high)).float().mean(dim=-1).cpu(),
            )
        )

    def _weighed(self, generator: nn.Module, inputs: tuple, weights: Tensor) -> None:
        self.weights.append(weights.detach().float().cpu())

    def _asked(self, generator: nn.Module, inputs: tuple, request: Routing | list[Routing]) -> None:
        clamped = clamped_queries(request)
        if clamped is not None:
            self.clamped.append(clamped.cpu())


@torch.no_grad()
def clamped_queries(request: Routing | list[Routing]) -> Tensor | None:
    """(B, Q), bool: whether any bias of a query, in any layer, is at its limit; none for a gate.

    At the limit a bias has no gradient, and the router nothing to learn from it.
    """
    if isinstance(request, AttentionGate):
        return None
    if isinstance(request, list):
        return torch.stack([clamped_queries(layer) for layer in request]).any(dim=0)
    least = CLAMPED_FROM * request.limit
    if isinstance(request, AttentionMix):
        return (request.bias.abs() >= least).any(dim=-1)
    clamped = (request.everywhere.abs() >= least).any(dim=-1)
    for window in request.windows:
        sample, query = window.sample[:, None], window.query[:, None]
        bias = request.everywhere[sample, query, request.groups.index[window.token]] + window.added
        there = (bias.abs() >= least).any(dim=1)
        clamped[window.sample[there], window.query[there]] = True
    return clamped


@HOOKS.register_module()
class RoutingLogHook(Hook):
    """Log the attention mass per sensor, and the router's weights and scales where there is one.

    ``tools/train.py`` and ``tools/test.py`` add it to every run; it does nothing to a model whose
    head is not a :class:`CmtHead` of both sensors. In the log stand, over layers and heads:
    ``lidar_mass`` and ``leverage`` (means) and ``gap`` (median), and with a router ``w_<sensor>``,
    its mean weight, ``w_<sensor>_std``, the scales, and ``clamped``, the share of queries with a
    bias at its limit. By layer and head the attention is written to ``routing.jsonl`` beside the
    log. The leverage is the share of query-head pairs that a bias can still move: of the others,
    one sensor has more than 95 % of the attention. A learned scale at a limit of its range gets
    one warning a run.

    It costs a second attention where it looks, one batch in ``interval``. After a test or
    validation the figures are among the metrics; they are those of the main process's samples.

    Args:
        interval: training iterations from one record to the next.
        test_interval: the same for batches of a validation or test.

    Raises:
        ValueError: an interval below 1.
    """

    def __init__(self, *, interval: int = 50, test_interval: int = 10) -> None:
        if min(interval, test_interval) < 1:
            raise ValueError(
                f'interval ({interval}) and test_interval ({test_interval}) start at 1'
            )
        self.interval = interval
        self.test_interval = test_interval
        self._watch: _Watch | None = None
        self._tested: list[_Watch] = []
        self._warned: set[str] = set()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Start to watch one iteration in ``interval``, the first among them."""
        if runner.iter % self.interval == 0:
            self._start(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Put what was seen among the numbers of the log."""
        watch = self._stop()
        if watch is not None:
            self._log(runner, self._figures(runner, [watch], 'train'), 'train')
            self._warn_of_limits(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the last validation."""
        self._tested = []

    before_test_epoch = before_val_epoch

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Start to watch one batch in ``test_interval``, the first among them."""
        if batch_idx % self.test_interval == 0:
            self._start(runner)

    before_test_iter = before_val_iter

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: list | None = None,
    ) -> None:
        """Keep what was seen."""
        watch = self._stop()
        if watch is not None:
            self._tested.append(watch)

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the figures to the metrics."""
        self._add_to_metrics(runner, metrics, 'val')

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the figures to the metrics."""
        self._add_to_metrics(runner, metrics, 'test')

    def _add_to_metrics(self, runner: Runner, metrics: dict[str, float] | None, phase: str) -> None:
        figures = self._figures(runner, self._tested, phase)
        if metrics is not None:
            metrics.update(figures)
        self._log(runner, figures, phase)

    def _log(self, runner: Runner, figures: Mapping[str, float], phase: str) -> None:
        for name, value in figures.items():  # LoggerHook, which comes later, prints these
            runner.message_hub.update_scalar(f'{phase}/{name}', value)

    def _warn_of_limits(self, runner: Runner) -> None:
        generator = _head(runner.model).attention_bias_generator
        if generator is None or not isinstance(generator.bias_scale, nn.Parameter):
            return  # no scale, or one that the config fixed
        for name, scale in _scales(generator).items():
            at_limit = any(math.isclose(scale, end, rel_tol=1e-6) for end in generator.scale_range)
            if at_limit and name not in self._warned:
                self._warned.add(name)
                print_log(
                    f'{name} sits at {scale:g}, a limit of its range {generator.scale_range}; to '
                    'let training move it on, widen scale_range of aqr.bias_generator, and limit '
                    'with it',
                    logger='current',
                    level=logging.WARNING,
                )

    def _start(self, runner: Runner) -> None:
        self._stop()  # an iteration that failed may have left one
        head = _head(runner.model)
        if head is not None and is_main_process():
            self._watch = _Watch(head)

    def _stop(self) -> _Watch | None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        return watch

    def _figures(self, runner: Runner, watches: list[_Watch], phase: str) -> dict[str, float]:
        """Summary for the log; by layer and head into the file."""
        figures = {}
        routings = [routing for watch in watches for routing in watch.routings]
        if routings:
            mean = AttentionFigures(
                *(torch.stack(values).mean(0) for values in zip(*routings, strict=True))
            )
            figures['lidar_mass'] = mean.lidar_mass.mean().item()
            figures['gap'] = mean.gap.median().item()
            figures['leverage'] = mean.leverage.mean().item()
            self._write(runner, phase, mean)
        weights = [weight for watch in watches for weight in watch.weights]
        if weights:
            figures.update(_weight_figures(weights))
            figures.update(_scale_figures(_head(runner.model).attention_bias_generator))
        clamped = [part.flatten() for watch in watches for part in watch.clamped]
        if clamped:
            figures['clamped'] = torch.cat(clamped).float().mean().item()
        return figures

    def _write(self, runner: Runner, phase: str, routing: AttentionFigures) -> None:
        # To be asked for its iteration, a Runner that only tests would build its training data.
        iteration = 0 if phase == 'test' else runner.iter
        line = {'phase': phase, 'iteration': iteration}
        line.update({name: value.tolist() for name, value in routing._asdict().items()})
        with Path(runner.log_dir, 'routing.jsonl').open('a') as file:
            file.write(json.dumps(line) + '\n')


def _head(model: nn.Module) -> CmtHead | None:
    """The model's head, where it is one of both sensors."""
    if is_model_wrapper(model):
        model = model.module
    head = getattr(model, 'pts_bbox_head', None)
    both = isinstance(head, CmtHead) and set(head.modalities) == set(MODALITIES)
    return head if both else None


def _weight_figures(weights: list[Tensor]) -> Mapping[str, float]:
    """Mean and spread over the queries of several (B, Q, M)."""
    lidar = torch.cat([weight[..., :1].flatten() for weight in weights])
    camera = torch.cat([weight[..., 1:].flatten() for weight in weights])
    figures = {}
    for modality, values in zip(MODALITIES, (lidar, camera), strict=True):
        figures[f'w_{modality}'] = values.mean().item()
        figures[f'w_{modality}_std'] = values.std(correction=0).item()
    return figures


def _scale_figures(generator: AttentionBiasGenerator | None) -> Mapping[str, float]:
    """Scales of a bias or mix, and the mean temperature of a mix; a gate has neither."""
    if generator is None:
        return {}
    figures = _scales(generator)
    if generator.temperature is not None:
        figures['temperature'] = generator.temperature.mean().item()
    return figures


def _scales(generator: AttentionBiasGenerator) -> dict[str, float]:
    """Every scale by its name in the log."""
    if generator.bias_scale is None:
        return {}
    scales = generator.bias_scale.tolist()
    tables = {'': scales}
    if generator.bias_scale.dim() == 3:
        tables = {f'_layer{layer}': table for layer, table in enumerate(scales)}
    return {
        f'scale_{scope}_{modality}{layer}': value
        for layer, table in tables.items()
        for scope, row in zip(generator.scopes, table, strict=True)
        for modality, value in zip(MODALITIES, row, strict=True)
    }
