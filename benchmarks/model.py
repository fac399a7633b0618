"""Size and inference cost of models: parameters, operations, latency by part, memory."""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from projects.cmt_aqr.markdown import duration, table

from . import workload
from .processes import measure
from .report import Report, gigabytes, memory_kind, procedure, spread
from .timing import Stopwatch, Times, summarize
from .workload import Workload

PHASES = ('input', 'lidar', 'camera', 'head')
HEAD = 'pts_bbox_head'
# Kernels that torch's counter does not know, with what counts their operations.
_KERNELS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *_, **__: sdpa_flop_count(query, key, value)
    ),
}


class InferenceStep:
    """Repeated inference on one sample, with random weights.

    Attributes:
        model: the detector, in evaluation mode.
        batch: the sample, collated.
        facts: for each part of the model the numbers of ``trainable`` and ``frozen`` parameters,
            and ``flops``, the operations for the sample.
    """

    def __init__(self, given: Workload, *, device: torch.device) -> None:
        _, self.model, self.batch = given.build()
        self.model.eval()
        self._watch = Stopwatch(device)
        self()  # builds the fast paths, whose check against the originals would be counted
        self.facts = self._count()
        self.model.to(device)

    def _count(self) -> dict[str, dict[str, int]]:
        """Parameters and operations of each part with parameters, the head last.

        Multiplications and additions of matrix products, convolutions and attention count. On the
        CPU sparse convolutions are matrix products of torch; on a GPU they would not be counted.
        """
        with FlopCounterMode(display=False, custom_mapping=_KERNELS) as counter:
            self.model.test_step(self.batch)
        facts = {}
        for name, part in sorted(self.model.named_children(), key=lambda child: child[0] == HEAD):
            trains = [(p.requires_grad, p.numel()) for p in part.parameters()]
            if trains:
                facts[name] = {
                    'trainable': sum(size for trained, size in trains if trained),
                    'frozen': sum(size for trained, size in trains if not trained),
                    'flops': sum(
                        counter.flop_counts[f'{type(self.model).__name__}.{name}'].values()
                    ),
                }
        return facts

    @torch.no_grad()
    def __call__(self) -> Times:
        """Detect boxes once.

        Returns:
            seconds of ``input`` (transfer to the device, voxels), ``lidar``, ``camera``, ``head``
            (decoder and boxes) and their sum ``inference``. On a CPU also the processor time of
            each as ``cpu/...``.
        """
        self._watch.reset()
        lap, model = self._watch.lap, self.model
        with lap('input'):
            data = model.data_preprocessor(self.batch, False)
        inputs = data['inputs']
        with lap('lidar'):
            bev = model.extract_pts_feat(inputs)
        with lap('camera'):
            images = model.extract_img_feat(inputs)
        with lap('head'):
            model.pts_bbox_head.predict(bev, images, data['data_samples'])
        return self._watch.times(_with_sum)


def _with_sum(laps: Times) -> Times:
    return {'inference': sum(laps.values()), **laps}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument('configs', nargs='+', type=Path, help='configs of the models')
    workload.add_arguments(parser)


def run(args: argparse.Namespace) -> Report:
    """Measure all models.

    Raises:
        UsageError: a config or the sample does not exist.
    """
    data_root = workload.check(args.configs, args)
    makers = {
        config.stem: partial(
            InferenceStep, Workload(str(config), args.cfg_options, data_root), device=args.device
        )
        for config in args.configs
    }
    models = {
        name: {
            'seconds': summarize(side.runs),
            'peak_memory': side.peak_memory,
            'parts': side.facts,
            'runs': side.runs,
        }
        for name, side in measure(makers, args).items()
    }
    introduction = (
        f'Inference on {workload.describe(data_root, args)}; weights are random. {procedure(args)} '
        '"Input" is voxels and normalised images, "head" decoder and boxes. '
        f'{memory_kind(args.device)}'
    )
    return Report(markdown=f'{introduction}\n\n{_tables(models)}', data={'models': models})


def _tables(models: Mapping[str, dict]) -> str:
    """Latency of all models, then the parts of each."""
    rows = [
        (
            name,
            *(duration(model['seconds'][phase].median) for phase in PHASES),
            spread(model['seconds']['inference']),
            f'{1 / model["seconds"]["inference"].median:.2f}',
            gigabytes(model['peak_memory']),
        )
        for name, model in models.items()
    ]
    paragraphs = [table(('', *PHASES, 'inference', 'frames/s', 'peak'), rows)]
    for name, model in models.items():
        paragraphs += [f'{name}:', _parts_table(model['parts'])]
    return '\n\n'.join(paragraphs)


def _parts_table(parts: Mapping[str, Mapping[str, int]]) -> str:
    """Parts of one model, with their sums in the last row."""
    keys = ('trainable', 'frozen', 'flops')
    sums = {key: sum(part[key] for part in parts.values()) for key in keys}
    rows = [
        (
            name,
            f'{facts["trainable"] / 1e6:.2f} M',
            f'{facts["frozen"] / 1e6:.2f} M',
            f'{facts["flops"] / 1e9:.1f}',
        )
        for name, facts in {**parts, 'all': sums}.items()
    ]
    return table(('part', 'trainable', 'frozen', 'GFLOPs'), rows)
