"""Memory of a training step, counted from its tensors: models of any size without a GPU.

Parameters, gradients, the state of the optimizer, the copies that compute frozen parts, and the
tensors that autograd keeps for the backward pass of one sample count, each storage once. Temporary
memory of single operations, such as gradients of activations and workspaces, does not.

The image branch runs on fake tensors, which have sizes and types but no values. The sparse encoder
runs on spconv's kernels for the CPU, whose index pairs are as large as those for CUDA. Dropout in
self-attention keeps a byte for each weight on the CPU, and none on CUDA.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from projects.cmt_aqr.markdown import table

from . import workload
from .processes import SideProcess
from .report import Report, gigabytes
from .training_step import BRANCHES, TrainingStep
from .workload import Workload

PRECISIONS = {'float32': False, '--amp': True}
BATCHES = (1, 2, 4)
CPU = torch.device('cpu')
_ADAMW_TENSORS = 2  # means of the gradient and of its square, each as large as the parameter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument('configs', nargs='+', type=Path, help='configs of the models')
    workload.add_arguments(parser)


def run(args: argparse.Namespace) -> Report:
    """Count every model in both precisions, each in its own process.

    Raises:
        UsageError: a config or the sample does not exist.
    """
    data_root = workload.check(args.configs, args)
    models = {}
    for config in args.configs:
        make = partial(TrainingMemory, Workload(str(config), args.cfg_options, data_root))
        with SideProcess(make, device=CPU, threads=args.threads) as side:
            models[config.stem] = side.facts()
    introduction = (
        f'Memory of a training step, counted from tensors of {workload.describe(data_root, args)}. '
        '"Fixed" is parameters, gradients, the state of AdamW and the copies of frozen parts; each '
        'branch has what it keeps of one sample for the backward pass; the last columns are sums.'
    )
    return Report(markdown=f'{introduction}\n\n{_table(models)}', data={'models': models})


class TrainingMemory:
    """Counts the memory of a training step."""

    def __init__(self, given: Workload) -> None:
        self.has_copies = given.read().model.get('fast_path') is not None
        # Fake tensors have no values: no fast path can be checked against its original, no grid be
        # drawn. Neither keeps anything for the backward pass.
        options = {**(given.options or {}), 'model.grid_mask': None, 'model.fast_path': None}
        self.step = TrainingStep(given._replace(options=options), device=CPU)

    @property
    def facts(self) -> dict[str, dict]:
        """The results of :meth:`fixed`, and of :meth:`kept` in each precision."""
        kept = {name: self.kept(amp=amp) for name, amp in PRECISIONS.items()}
        return {'fixed': self.fixed(), 'kept': kept}

    def fixed(self) -> dict[str, int]:
        """Bytes that do not depend on the batch, by purpose."""
        model = self.step.model
        trained = _size(p for p in model.parameters() if p.requires_grad)
        copied = self.step.facts['frozen_parts'] if self.has_copies else []
        return {
            'parameters': _size([*model.parameters(), *model.buffers()]),
            'copies': sum(_size(model.get_submodule(name).parameters()) for name in copied),
            'gradients': trained,
            'optimizer': _ADAMW_TENSORS * trained,
        }

    def kept(self, *, amp: bool) -> dict[str, int]:
        """Bytes that autograd keeps of one sample for the backward pass, by branch."""
        model = self.step.model
        workload.seed()
        data = model.data_preprocessor(self.step.batch, True)
        inputs = data['inputs']
        with _watch_saved(model) as saved, torch.autocast('cpu', torch.bfloat16, enabled=amp):
            images = self._image_map(inputs.get('imgs'))
            camera = saved.bytes
            bev = model.extract_pts_feat(inputs)
            lidar = saved.bytes - camera
            losses = model.pts_bbox_head.loss(bev, images, data['data_samples'])
        del losses  # they hold the saved tensors until here
        sizes = (camera, lidar, saved.bytes - camera - lidar)
        return dict(zip(BRANCHES, sizes, strict=True))

    def _image_map(self, images: Tensor | None) -> Tensor | None:
        """Random values in the size and type of the image branch, which runs on fake tensors."""
        if images is None:
            return None
        fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        with fake_mode:
            found = self.step.model.extract_img_feat({'imgs': fake_mode.from_tensor(images)})
        return torch.randn(found.shape, dtype=found.dtype).requires_grad_(found.requires_grad)


class _Saved:
    """Storages that autograd saves, each counted once; those of the model do not count."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        own = (*model.parameters(), *model.buffers())
        # Referenced, so that no address is used twice.
        self._storages = {_address(tensor): tensor.untyped_storage() for tensor in own}

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor, and return it unchanged."""
        if _address(tensor) not in self._storages:
            storage = tensor.untyped_storage()
            self._storages[_address(tensor)] = storage
            self.bytes += storage.nbytes()
        return tensor


@contextmanager
def _watch_saved(model: nn.Module) -> Iterator[_Saved]:
    saved = _Saved(model)
    with saved_tensors_hooks(saved.note, lambda tensor: tensor):
        yield saved


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _table(models: Mapping[str, dict]) -> str:
    head = ('', 'precision', 'fixed', *BRANCHES, *(f'{n} per GPU' for n in BATCHES))
    rows = []
    for name, model in models.items():
        fixed = sum(model['fixed'].values())
        for precision, kept in model['kept'].items():
            totals = (fixed + batch * sum(kept.values()) for batch in BATCHES)
            sizes = (fixed, *(kept[branch] for branch in BRANCHES), *totals)
            rows.append((name, precision, *map(gigabytes, sizes)))
    return table(head, rows)
