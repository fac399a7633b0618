"""Hook that logs the attention of queries to each sensor, and the router's weights and scales.

Shapes: B batch, L decoder layers, H heads, Q queries, M token groups.
"""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet3d.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import Tensor, nn

from ..aqr import TokenLayout
from ..aqr.router import RouterOutput
from ..head import MODALITIES, CmtHead
from ..running_hooks import unwrap
from ..transformer import RoutingForm, TokenGroups

# A bias moves the attention of a (query, head) pair noticeably only if both sensors have a share.
LEVERAGE_LIMITS = (0.05, 0.95)


class AttentionFigures(NamedTuple):
    """Attention of the queries of one batch, by layer and head (L, H)."""

    lidar_share: Tensor
    """mean attention share of the LiDAR tokens, routing included"""
    gap: Tensor
    """median of |log of the LiDAR share - log of the camera share|; under a bias, that is the
    difference of the log-sum-exps of the biased logits"""
    leverage: Tensor
    """share of queries whose LiDAR share lies within :data:`LEVERAGE_LIMITS`"""


class _Watch:
    """Records the attention and routing of every forward pass of a head until it is closed."""

    def __init__(self, head: CmtHead) -> None:
        self.routings: list[AttentionFigures] = []
        self.weights: list[Tensor] = []
        self.clamped: list[Tensor] = []
        self._groups: TokenGroups | None = None
        self._layers: list[Tensor] = []
        self._handles = [
            head.register_forward_pre_hook(self._start),
            head.register_forward_hook(self._finish),
        ]
        for layer in head.transformer.layers:
            attention = layer.attentions[1].attn
            self._handles.append(attention.register_forward_hook(self._attended, with_kwargs=True))
        if head.router is not None:
            self._handles.append(head.router.register_forward_hook(self._routed))

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
        if self._groups is None:
            return
        query, key = inputs[:2]
        # The decoding of one modality alone has nothing to share.
        if key.shape[1] == self._groups.num_tokens:
            share = attention.attention_share(query, key, self._groups, **options).float()
            self._layers.append(share.transpose(0, 1).flatten(1, 2))  # (H, B * Q, 2)

    def _finish(self, head: CmtHead, inputs: tuple, outputs: list) -> None:
        if self._groups is None:
            return
        share = torch.stack(self._layers)  # (L, H, B * Q, 2)
        lidar = share[..., 0]
        low, high = LEVERAGE_LIMITS
        # A share below the smallest number counts as that number: the largest gap is 87.
        logs = share.clamp(min=torch.finfo(share.dtype).tiny).log()
        self.routings.append(
            AttentionFigures(
                lidar_share=lidar.mean(dim=-1).cpu(),
                gap=(logs[..., 0] - logs[..., 1]).abs().median(dim=-1).values.cpu(),
                leverage=((lidar > low) & (lidar < high)).float().mean(dim=-1).cpu(),
            )
        )

    @torch.no_grad()
    def _routed(self, router: nn.Module, inputs: tuple, output: RouterOutput) -> None:
        self.weights.append(output.weights.detach().float().cpu())
        routing = output.routing
        clamped = None if routing is None else routing.form.clamped_queries(routing)
        if clamped is not None:
            self.clamped.append(clamped.cpu())


@HOOKS.register_module()
class RoutingLogHook(Hook):
    """Logs the attention share of each sensor, and the router's weights and scales, if any.

    Training and test runs of this project include it; it ignores a model whose head is not a
    :class:`CmtHead` of both sensors. The log has ``lidar_share`` and ``leverage`` (means over
    layers and heads) and ``gap`` (median), and with a router ``w_<sensor>``, its mean weight,
    ``w_<sensor>_std``, the scales, and ``clamped``, the share of queries with a bias at its limit.
    The figures of each layer and head go into ``routing.jsonl`` beside the log. Leverage is the
    share of (query, head) pairs that a bias can still move: in the other pairs one sensor has more
    than 95 % of the attention. A learned scale at a limit of its range gives one warning a run.

    It costs a second attention in the batches that it records, one in ``interval``. After a test or
    validation the figures are among the metrics; they are those of the main process's samples.

    Args:
        interval: training iterations between two records.
        test_interval: batches of a validation or test between two records.

    Attributes:
        results: records of the current test or validation by batch; None for a batch without one.

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
        self.results: list[_Watch | None] = []
        self._warned: set[str] = set()

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Start a record in the first of every ``interval`` iterations."""
        if runner.iter % self.interval == 0:
            self._start(runner)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Add the record to the log."""
        watch = self._stop()
        if watch is not None:
            self._log(runner, [watch], 'train')
            self._warn_of_limits(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        """Forget the records of the last validation."""
        self.results = []

    before_test_epoch = before_val_epoch

    def before_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Start a record in the first of every ``test_interval`` batches."""
        if len(self.results) % self.test_interval == 0:
            self._start(runner)

    before_test_iter = before_val_iter

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: list | None = None,
    ) -> None:
        """Keep the record."""
        self.results.append(self._stop())

    after_test_iter = after_val_iter

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the figures to the metrics."""
        metrics.update(self._log(runner, self.results, 'val'))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Add the figures to the metrics."""
        metrics.update(self._log(runner, self.results, 'test'))

    def _log(self, runner: Runner, results: list[_Watch | None], phase: str) -> dict[str, float]:
        """Log the figures, and return them."""
        watches = [watch for watch in results if watch is not None]
        figures = self._figures(runner, watches, phase)
        for name, value in figures.items():  # LoggerHook, which runs later, prints these
            runner.message_hub.update_scalar(f'{phase}/{name}', value)
        return figures

    def _warn_of_limits(self, runner: Runner) -> None:
        form = _routing_form(runner.model)
        if form is None or not form.learns_scales:
            return
        for name, scale in form.scales_at_limit().items():
            if name not in self._warned:
                self._warned.add(name)
                print_log(
                    f'{name} is {scale:g}, a limit of its range {form.scale_range}; to let it move '
                    'on, widen scale_range of aqr.routing, and limit with it',
                    logger='current',
                    level=logging.WARNING,
                )

    def _start(self, runner: Runner) -> None:
        self._stop()  # a failed iteration may have left a watch
        head = _head(runner.model)
        if head is not None and is_main_process():
            self._watch = _Watch(head)

    def _stop(self) -> _Watch | None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        return watch

    def _figures(self, runner: Runner, watches: list[_Watch], phase: str) -> dict[str, float]:
        """Figures for the log; those of each layer and head go into the file."""
        figures = {}
        routings = [routing for watch in watches for routing in watch.routings]
        if routings:
            mean = AttentionFigures(
                *(torch.stack(values).mean(0) for values in zip(*routings, strict=True))
            )
            figures['lidar_share'] = mean.lidar_share.mean().item()
            figures['gap'] = mean.gap.median().item()
            figures['leverage'] = mean.leverage.mean().item()
            self._write(runner, phase, mean)
        weights = [weight for watch in watches for weight in watch.weights]
        if weights:
            form = _routing_form(runner.model)
            figures |= _weight_figures(weights) | ({} if form is None else form.log_values())
        clamped = [part.flatten() for watch in watches for part in watch.clamped]
        if clamped:
            figures['clamped'] = torch.cat(clamped).float().mean().item()
        return figures

    def _write(self, runner: Runner, phase: str, routing: AttentionFigures) -> None:
        # Reading the iteration of a Runner that only tests would build its training data.
        iteration = 0 if phase == 'test' else runner.iter
        line = {'phase': phase, 'iteration': iteration}
        line.update({name: value.tolist() for name, value in routing._asdict().items()})
        with Path(runner.log_dir, 'routing.jsonl').open('a') as file:
            file.write(json.dumps(line) + '\n')


def _head(model: nn.Module) -> CmtHead | None:
    """The model's head, if it is one of both sensors."""
    head = getattr(unwrap(model), 'pts_bbox_head', None)
    both = isinstance(head, CmtHead) and set(head.modalities) == set(MODALITIES)
    return head if both else None


def _routing_form(model: nn.Module) -> RoutingForm | None:
    """The routing form of a model whose head is one of both sensors."""
    router = _head(model).router
    return None if router is None else router.attention_bias_generator


def _weight_figures(weights: list[Tensor]) -> dict[str, float]:
    """Mean and standard deviation of the weights (B, Q, M) of several batches."""
    lidar = torch.cat([weight[..., :1].flatten() for weight in weights])
    camera = torch.cat([weight[..., 1:].flatten() for weight in weights])
    figures = {}
    for modality, values in zip(MODALITIES, (lidar, camera), strict=True):
        figures[f'w_{modality}'] = values.mean().item()
        figures[f'w_{modality}_std'] = values.std(correction=0).item()
    return figures
