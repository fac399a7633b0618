"""Memory of a training step, counted from its tensors; no GPU is needed, whatever the model's size.

Counted are parameters, gradients, the optimizer's state, the copies that compute frozen parts, and
what autograd keeps for the backward pass of one sample, each storage once. Not counted is what a
single operation needs for a moment, such as gradients of activations and a library's workspace.

The image branch is run on fake tensors, which have sizes and types but no values. The sparse
encoder is run by spconv's kernels for the CPU, whose index pairs are as large as those for CUDA.
Dropout in self-attention keeps a byte for each weight on the CPU and none on CUDA.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from ..usage_error import UsageError
from .inputs import check_samples
from .processes import SideProcess
from .report import Report, gigabytes, table
from .training_step import BRANCHES, TrainingStep

PRECISIONS = {'float32': False, '--amp': True}
BATCHES = (1, 2, 4)
CPU = torch.device('cpu')
_ADAMW_TENSORS = 2  # as large as the parameter: means of its gradient and of the square


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of this benchmark."""
    parser.add_argument('configs', nargs='+', type=Path, help='of one or several models')
    parser.add_argument(
        '--frame', default='data/real_frame', help='data root whose first sample is counted'
    )
    parser.add_argument(
        '--synthetic', action='store_true', help='count a sample made at random instead'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings to change in every config, such as model.img_backbone.with_cp=False',
    )


def run(args: argparse.Namespace) -> Report:
    """Count every model in both precisions, each in a process of its own.

    Raises:
        UsageError: a config or the data root does not exist.
    """
    for config in args.configs:
        if not config.is_file():
            raise UsageError(f'config {config} does not exist (in {Path.cwd()})')
    data_root = None if args.synthetic else check_samples(args.frame)
    models = {}
    for config in args.configs:
        settings = dict(config=str(config), options=args.cfg_options, data_root=data_root)
        with SideProcess(TrainingMemory, settings, device=CPU, threads=args.threads) as side:
            models[config.stem] = side.get('facts')
    data = {'data_root': data_root, 'options': dict(args.cfg_options), 'models': models}
    return Report(markdown=_markdown(data), data=data)


class TrainingMemory:
    """Counts the memory of a training step of a model.

    Args:
        config: file of the config.
        options: settings to change in it.
        data_root: whose first sample is counted; ``None`` makes one at random.
    """

    def __init__(self, *, config: str, options: Mapping, data_root: str | None) -> None:
        cfg = Config.fromfile(config)
        cfg.merge_from_dict(dict(options))
        self.has_copies = cfg.model.get('fast_path') is not None
        # Fake tensors have no values: a copy of a frozen part could not be checked by its outputs,
        # nor a grid be drawn. Neither keeps anything for the backward pass.
        plain = {'model.grid_mask': None, 'model.fast_path': None}
        self.step = TrainingStep(
            config=config,
            options={**options, **plain},
            data_root=data_root,
            device=CPU,
        )

    @property
    def facts(self) -> dict[str, dict]:
        """What is ``fixed``, and what is ``kept`` in each precision."""
        kept = {name: self.kept(amp=amp) for name, amp in PRECISIONS.items()}
        return {'fixed': self.fixed(), 'kept': kept}

    def fixed(self) -> dict[str, int]:
        """Bytes that do not depend on the batch, by what they are."""
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
        """Bytes that autograd keeps for one sample until the backward pass, by branch.

        Args:
            amp: whether in mixed precision.
        """
        model = self.step.model
        torch.manual_seed(0)
        data = model.data_preprocessor(self.step.batch, True)
        inputs = data['inputs']
        with _watch_saved(model) as saved, torch.autocast('cpu', torch.bfloat16, enabled=amp):
            images = self._image_map(inputs.get('imgs'))
            camera = saved.bytes
            bev = model.extract_pts_feat(inputs)
            lidar = saved.bytes - camera
            losses = model.pts_bbox_head.loss(bev, images, data['data_samples'])
        del losses  # until here it held what was saved
        sizes = (camera, lidar, saved.bytes - camera - lidar)
        return dict(zip(BRANCHES, sizes, strict=True))

    def _image_map(self, images: Tensor | None) -> Tensor | None:
        """Random values of the size and type that the image branch gives, which runs for it."""
        if images is None:
            return None
        fake_mode = FakeTensorMode(allow_non_fake_inputs=True)
        with fake_mode:
            found = self.step.model.extract_img_feat({'imgs': fake_mode.from_tensor(images)})
        return torch.randn(found.shape, dtype=found.dtype).requires_grad_(found.requires_grad)


class _Saved:
    """Storages that autograd saves, each once; the model's own do not count."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        own = (*model.parameters(), *model.buffers())
        # Held, so that no address is used twice.
        self._storages = {_address(tensor): tensor.untyped_storage() for tensor in own}

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor; return it as it is."""
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


def _markdown(data: Mapping) -> str:
    source = data['data_root'] or 'random input'
    options = ''.join(f', {key}={value}' for key, value in data['options'].items())
    head = ('', 'precision', 'fixed', *BRANCHES, *(f'{n} per GPU' for n in BATCHES))
    rows = []
    for name, model in data['models'].items():
        fixed = sum(model['fixed'].values())
        for precision, kept in model['kept'].items():
            totals = (fixed + batch * sum(kept.values()) for batch in BATCHES)
            sizes = (fixed, *(kept[branch] for branch in BRANCHES), *totals)
            rows.append((name, precision, *map(gigabytes, sizes)))
    return (
        f'Memory of a training step, counted from tensors of one sample of {source}{options}. '
        '"Fixed" is parameters, gradients, the state of AdamW and the copies of frozen parts; then '
        'what each branch keeps for the backward pass of a sample; then the sum for some samples.'
        f'\n\n{table(head, rows)}'
    )
