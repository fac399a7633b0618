"""Size and inference cost of models: parameters, operations, latency by part, memory.

Beside the time of each branch stands its limit: its operations at the speed of a large matrix
product in the same precision, measured in every round. Both are the least of all rounds, in
processor time on a CPU, which other work on the machine disturbs less.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from projects.cmt_aqr.feature_cache.frozen_features import BRANCHES
from projects.cmt_aqr.inference import fold_for_inference
from projects.cmt_aqr.markdown import duration, table

from . import workload
from .processes import measure
from .report import Report, gigabytes, memory_kind, procedure, spread
from .timing import Spread, Stopwatch, Times, summarize, work
from .workload import Workload

PHASES = ('input', 'lidar', 'camera', 'head')
HEAD = 'pts_bbox_head'
ADDED = ('health_monitor', 'planner')
"""parts that a model may have beside CMT; their time is within that of the head"""
# How the parts compute: their own layers, or copies in one of the types, compiled or not.
PLAIN = 'plain'
FORMS = {
    PLAIN: {},
    'float32': {},
    'bfloat16': dict(dtype='bfloat16'),
    'float16': dict(dtype='float16'),
    'compiled': dict(compile=True),
}
PRODUCT = 'product'
_PRODUCT_SIZE = 2048
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

    Args:
        given: config and sample.
        device: device of the model.
        form: one of :data:`FORMS`.
    """

    def __init__(self, given: Workload, *, device: torch.device, form: str = 'float32') -> None:
        _, self.model, self.batch = given.build()
        self.model.eval()
        settings = FORMS[form]
        if form != PLAIN:
            fold_for_inference(self.model, **settings)
        dtype = getattr(torch, settings.get('dtype', 'float32'))
        self._factor = torch.ones(_PRODUCT_SIZE, _PRODUCT_SIZE, dtype=dtype)
        self._watch = Stopwatch(device)
        self()  # builds the fast paths, whose check against the originals would be counted
        self.facts = self._count()
        self.model.to(device)
        self._factor = self._factor.to(device)
        for name in ADDED:
            part = getattr(self.model, name, None)
            if part is not None:
                part.forward = self._watch.lap(name)(part.forward)

    def _count(self) -> dict[str, dict[str, int]]:
        """Parameters and operations of each part with parameters, the head last.

        Multiplications and additions of matrix products, convolutions and attention count. On the
        CPU sparse convolutions are matrix products of torch; on a GPU they would not be counted.
        """
        # torch's counter looks for the gradients of parameters that a module returns, such as the
        # scales of a router, and fails where gradients are disabled.
        trained = [p for p in self.model.parameters() if p.requires_grad]
        self.model.requires_grad_(False)
        with FlopCounterMode(display=False, custom_mapping=_KERNELS) as counter, torch.no_grad():
            self.model.test_step(self.batch)
        for parameter in trained:
            parameter.requires_grad_(True)
        root, counted = type(self.model).__name__, counter.flop_counts
        facts = {}
        for name, part in sorted(self.model.named_children(), key=lambda child: child[0] == HEAD):
            trains = [(p.requires_grad, p.numel()) for p in part.parameters()]
            if trains:
                facts[name] = {
                    'trainable': sum(size for trained, size in trains if trained),
                    'frozen': sum(size for trained, size in trains if not trained),
                    'flops': sum(
                        sum(counted[f'{root}.{called}'].values()) for called in _called(name, part)
                    ),
                }
        return facts

    @torch.no_grad()
    def __call__(self) -> Times:
        """Detect boxes once.

        Returns:
            seconds of ``input`` (transfer to the device, voxels), ``lidar``, ``camera``, ``head``
            (decoder and boxes, with a monitor, experts or a planner), their sum ``inference``, and
            the ``product`` of two matrices of 2048 x 2048; of the head's time, that of each of
            :data:`ADDED` in the model. On a CPU also the processor time of each as ``cpu/...``.
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
            model.predict_from((bev, images), inputs, data['data_samples'])
        with lap(PRODUCT):
            self._factor @ self._factor
        return self._watch.times(_with_sum)


def _called(name: str, part: nn.Module) -> list[str]:
    """Names of the modules that run when a part does: a container's are those in it."""
    if isinstance(part, nn.ModuleDict):
        return [f'{name}.{child}' for child in part]
    return [name]


def _with_sum(laps: Times) -> Times:
    return {'inference': sum(laps[phase] for phase in PHASES), **laps}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument('configs', nargs='+', type=Path, help='configs of the models')
    parser.add_argument(
        '--forms',
        nargs='+',
        choices=FORMS,
        default=['float32'],
        help='how to compute: by folded copies in a precision, compiled or not, or plain, by the '
        'layers themselves (default: float32)',
    )
    workload.add_arguments(parser)


def run(args: argparse.Namespace) -> Report:
    """Measure all models.

    Raises:
        UsageError: a config or the sample does not exist.
    """
    data_root = workload.check(args.configs, args)
    makers = {
        f'{config.stem}, {form}': partial(
            InferenceStep,
            Workload(str(config), args.cfg_options, data_root),
            device=args.device,
            form=form,
        )
        for config in args.configs
        for form in args.forms
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
        '"Input" is voxels and normalised images, "head" decoder and boxes, with a health monitor, '
        'experts or a planner where the model has them. '
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
        paragraphs.append(_limits_table(model['parts'], work(model['seconds'])))
        paragraphs += [_added(name, model['seconds']) for name in ADDED if name in model['seconds']]
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


def _limits_table(parts: Mapping[str, Mapping[str, int]], seconds: Mapping[str, Spread]) -> str:
    """Least time of each branch beside its limit; see the docstring of this module."""
    per_operation = seconds[PRODUCT].low / (2 * _PRODUCT_SIZE**3)
    rest = parts.keys() - {name for names in BRANCHES.values() for name in names}
    counts = {
        branch: sum(facts['flops'] for name, facts in parts.items() if name in names)
        for branch, names in {**BRANCHES, 'head': rest}.items()
    }
    rows = []
    for branch, count in {**counts, 'inference': sum(counts.values())}.items():
        if count:
            limit, found = count * per_operation, seconds[branch].low
            times = duration(limit), duration(found), f'{found / limit:.2f}'
            rows.append((branch, f'{count / 1e9:.1f}', *times))
    return table(('branch', 'GFLOPs', 'limit', 'least time', '×'), rows)


def _added(name: str, seconds: Mapping[str, Spread]) -> str:
    """What a part beside CMT takes of the inference."""
    spent = work(seconds)
    share = spent[name].median / spent['inference'].median
    return (
        f'{name}: {spread(seconds[name])} of the head, {share:.1%} of the work of inference '
        '(processor time on a CPU).'
    )
