"""Patches that let the pinned OpenMMLab stack run on today's torch, on CPU too, and load safely.

Importing this module applies them all, once; no file of an installed package is edited. Each patch
is one function that names the fault and its upstream thread. A package that is not installed is
left out, so that ``geometry`` and ``transformer`` import with torch alone.

With these patches no checkpoint can make the process run its code: neither a run's own on resume,
nor one that comes from elsewhere (``load_from``, ``init_cfg=dict(type='Pretrained')``, a URL).
"""

import functools
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

_MINIMUM_TORCH = (2, 6)


def is_installed(package: str) -> bool:
    """Whether a package is installed; one that an import hook refuses is not."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def _replace(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
    """Put ``make(original)`` in place of ``owner.name``, unless an earlier call has done so."""
    original = getattr(owner, name)
    if getattr(original, '_replaced_by', None) == __name__:
        return
    replacement = functools.wraps(original)(make(original))
    replacement._replaced_by = __name__
    setattr(owner, name, replacement)


def require_safe_torch_load() -> None:
    """Refuse a torch whose ``torch.load`` runs the code in a file unless told not to.

    mmengine 0.10.7 calls ``torch.load`` without ``weights_only``; since torch 2.6 that means True
    (https://github.com/open-mmlab/mmengine/issues/1655).

    Raises:
        ImportError: torch is older than 2.6.
    """
    version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if version < _MINIMUM_TORCH:
        raise ImportError(
            f'torch {torch.__version__} runs the code hidden in a checkpoint when it loads one; '
            f'install torch {".".join(map(str, _MINIMUM_TORCH))} or newer'
        )


def allow_mmengine_checkpoint_types() -> None:
    """Let ``torch.load(weights_only=True)`` read the plain data mmengine stores beside the weights.

    A checkpoint of mmengine 0.10.7 holds its log as ``HistoryBuffer`` objects over numpy arrays and
    cannot be resumed under torch >= 2.6 (https://github.com/open-mmlab/mmengine/issues/1655; the
    open https://github.com/open-mmlab/mmengine/pull/1650 turns the safety off instead). All of it
    is data but one dangerous name: ``getattr``, by which a buffer points to its own statistics
    functions. A lookup that knows nothing else takes its place.
    """
    if not is_installed('mmengine'):
        return
    import numpy as np
    from mmengine.logging import HistoryBuffer

    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    # numpy 2 moved numpy.core to numpy._core; a file may have been written by either.
    numpy_functions = [
        (function, f'{package}.multiarray.{function.__name__}')
        for function in (reconstruct, scalar)
        for package in ('numpy.core', 'numpy._core')
    ]
    number_types = {type(np.dtype(code)) for code in np.typecodes['AllInteger'] + 'efd?U'}
    torch.serialization.add_safe_globals(
        [
            HistoryBuffer,
            (_statistics_function, 'builtins.getattr'),
            np.ndarray,
            np.dtype,
            *number_types,
            *numpy_functions,
        ]
    )


def _statistics_function(owner: object, name: str) -> Callable:
    """Stand in for ``getattr`` in a checkpoint: a statistics function of ``HistoryBuffer``.

    Raises:
        pickle.UnpicklingError: the checkpoint asks for anything else.
    """
    from mmengine.logging import HistoryBuffer

    # A buffer registers the defaults (min, max, current, mean) when it is made.
    allowed = HistoryBuffer()._statistics_methods
    if owner is not HistoryBuffer or name not in allowed:
        raise pickle.UnpicklingError(
            f'the checkpoint asks for attribute {name!r} of {owner!r}; only the statistics '
            f'{sorted(allowed)} of HistoryBuffer are allowed'
        )
    return allowed[name]


def leave_out_cudnn_attention() -> None:
    """Remove cuDNN from the kernels that ``scaled_dot_product_attention`` chooses among.

    With a mask, cuDNN has two faults in float16 and bfloat16: since torch 2.11, NaN in the gradient
    of the queries for some lengths on H100 and H200
    (https://github.com/pytorch/pytorch/issues/196678); and a float32 mask is read as if it had the
    type of the queries (https://github.com/pytorch/pytorch/pull/191612). CMT masks its
    self-attention in training. The flash and memory-efficient kernels stay.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def read_urls_as_weights() -> None:
    """Read checkpoints from web addresses with ``weights_only=True``.

    For http(s), torchvision:// and open-mmlab:// mmengine calls
    ``torch.hub.load_state_dict_from_url``, whose ``weights_only`` is still False by default: files
    from furthest away were the only ones that could run code. The option came with
    https://github.com/pytorch/pytorch/pull/98479; no mmengine thread was found.
    """
    if not is_installed('mmengine'):
        return
    from mmengine.runner import checkpoint

    _replace(checkpoint, 'load_url', lambda load: functools.partial(load, weights_only=True))


def checkpoint_without_reentry() -> None:
    """Let ``activation_checkpointing=[...]`` of a Runner train what it wraps.

    mmengine 0.10.7 calls ``torch.utils.checkpoint.checkpoint`` in its re-entrant form, which gives
    the weights inside no gradient where no input needs one: always in a module that takes images,
    and in any that comes after a frozen one. The other form has no such condition
    (https://docs.pytorch.org/docs/stable/checkpoint.html); no mmengine thread was found.
    """
    if not is_installed('mmengine'):
        return
    from mmengine.runner import activation_checkpointing

    _replace(
        activation_checkpointing,
        'checkpoint',
        lambda checkpoint: functools.partial(checkpoint, use_reentrant=False),
    )


def resume_without_running_config() -> None:
    """Keep ``Runner.resume`` from running the config text found in a checkpoint.

    It executes ``meta['config']`` as Python to compare a ``gpu_ids`` that only mmcv 1.x wrote
    (https://github.com/open-mmlab/mmcv/pull/844; no mmengine thread was found). mmengine writes
    its own config as ``meta['cfg']``, so nothing is lost.
    """
    if not is_installed('mmengine'):
        return
    from mmengine.runner import Runner

    def make(resume: Callable) -> Callable:
        def resume_safely(runner: Runner, filename: str, *args, **kwargs) -> None:
            load = runner.load_checkpoint

            def load_without_config(*load_args, **load_kwargs) -> dict:
                checkpoint = load(*load_args, **load_kwargs)
                checkpoint['meta'].pop('config', None)
                return checkpoint

            runner.load_checkpoint = load_without_config
            try:
                resume(runner, filename, *args, **kwargs)
            finally:
                del runner.load_checkpoint

        return resume_safely

    _replace(Runner, 'resume', make)


def refuse_mmcv_sync_bn_without_cuda() -> None:
    """Refuse to build mmcv's synchronised batch normalisation if mmcv has no CUDA operators.

    This project calls none of them, so its set-up builds mmcv without. ``sync_bn='mmcv'`` in a
    config and ``norm_cfg=dict(type='MMSyncBN')`` would fail only in the first training step.
    """
    if find_spec('mmcv') is None or find_spec('mmcv._ext') is None:
        return
    from mmcv.ops import SyncBatchNorm, get_compiling_cuda_version

    if get_compiling_cuda_version() != 'not available':
        return

    def make(initialise: Callable) -> Callable:
        def refuse(module: torch.nn.Module, *args, **kwargs) -> None:
            raise RuntimeError(
                'mmcv was built without CUDA operators, which its SyncBatchNorm needs: use '
                "PyTorch's, sync_bn='torch' or norm_cfg=dict(type='SyncBN')"
            )

        return refuse

    _replace(SyncBatchNorm, '__init__', make)


def train_spconv_without_cuda() -> None:
    """Give spconv's backward pass a stream handle where there is no CUDA.

    spconv 2.3.8 asks torch for the current CUDA stream in its CPU backward too, and torch raises
    (https://github.com/traveller59/spconv/issues/366). CPU kernels ignore the handle: 0 serves.
    """
    if not is_installed('spconv'):
        return
    from spconv.pytorch import ops

    def make(current_stream: Callable[[], int]) -> Callable[[], int]:
        return lambda: current_stream() if torch.cuda.is_available() else 0

    _replace(ops, 'get_current_stream', make)


def run_spconv_on_one_cpu_thread() -> None:
    """Keep spconv's sparse convolutions on CPU to one thread; with more they give wrong values.

    In spconv 2.3.8 the threads of a scatter-add share one pointer (``buf`` and ``out_ptr`` in
    ``spconv/csrc/sparse/gather.py`` are declared outside of the loop's body and captured by
    reference): now and then rows of the output are wrong by as much as the values themselves. No
    upstream thread was found. Everything else keeps its threads.
    """
    if not is_installed('spconv'):
        return
    from spconv.pytorch import ops

    def make(operation: Callable) -> Callable:
        def run(features: torch.Tensor, *args, **kwargs) -> Any:
            threads = torch.get_num_threads()
            if features.is_cuda or threads == 1:
                return operation(features, *args, **kwargs)
            torch.set_num_threads(1)
            try:
                return operation(features, *args, **kwargs)
            finally:
                torch.set_num_threads(threads)

        return run

    for name in ('indice_conv', 'indice_conv_backward'):
        _replace(ops, name, make)


def differentiate_spconv_in_evaluation_mode() -> None:
    """Let sparse convolutions compute with autograd whenever it is on, in either mode.

    spconv 2.3.8 takes ``training`` for "a backward pass will follow" (``spconv/pytorch/conv.py``).
    In evaluation mode on CUDA it calls its kernel outside of autograd, so that nothing before a
    frozen layer gets a gradient; and a submanifold convolution then builds its index pairs without
    those of the backward pass. Layers with the same ``indice_key`` share the pairs of the first of
    them: behind a frozen one, a layer that trains hands its backward kernel an empty table. The
    values are the same either way, and no gradient is kept where none is needed. No upstream
    thread was found.

    On a CPU the same argument decides who adds the bias: in evaluation mode the kernels, which
    refuse ("cpu don't support act and bias").
    """
    if not is_installed('spconv'):
        return
    from spconv.pytorch.conv import SparseConvolution

    def make(conv_forward: Callable) -> Callable:
        def run(module, training, input, weight, bias, *args, **kwargs) -> Any:
            adds_bias = bias is not None and not input.features.is_cuda
            training = training or torch.is_grad_enabled() or adds_bias
            return conv_forward(module, training, input, weight, bias, *args, **kwargs)

        return run

    _replace(SparseConvolution, '_conv_forward', make)


def load_spconv_kernels_by_shape() -> None:
    """Permute a sparse kernel on load only if its shape says that it has spconv 1's layout.

    mmdet3d permutes (kz, ky, kx, in, out) to (out, kz, ky, kx, in) on every load whose state dict
    carries no ``_metadata`` version 2. A plain dict of right kernels, such as
    ``dict(model.state_dict())`` or the output of a converter, then does not fit, and is dropped
    with a warning under ``strict=False`` (https://github.com/open-mmlab/mmdetection3d/issues/1502,
    https://github.com/open-mmlab/mmdetection3d/issues/1610). Kernels that fit as they are were
    saved by spconv 2. One with all five sizes equal fits both ways, and is left to mmdet3d.
    """
    if not is_installed('mmdet3d') or not is_installed('spconv'):
        return
    # Imported first: this import puts mmdet3d's loader into SparseModule.
    from mmdet3d.models.layers.spconv import IS_SPCONV2_AVAILABLE

    if not IS_SPCONV2_AVAILABLE:
        return
    from spconv.pytorch import SparseModule

    def make(load_from_state_dict: Callable) -> Callable:
        def load(
            module: SparseModule, state_dict: dict, prefix: str, local_metadata: dict, *args
        ) -> None:
            if 'version' not in local_metadata and _fits_as_it_is(module, state_dict, prefix):
                local_metadata = {**local_metadata, 'version': module._version}
            load_from_state_dict(module, state_dict, prefix, local_metadata, *args)

        return load

    _replace(SparseModule, '_load_from_state_dict', make)


def _fits_as_it_is(module: torch.nn.Module, state_dict: dict, prefix: str) -> bool:
    """Whether the kernel stored for ``module`` has the module's shape, and only as it is."""
    stored = state_dict.get(f'{prefix}weight')
    kernel = getattr(module, 'weight', None)
    if stored is None or kernel is None:
        return False
    return stored.shape == kernel.shape and len(set(stored.shape)) > 1


def apply() -> None:
    """Apply every patch; a second call changes nothing."""
    require_safe_torch_load()
    leave_out_cudnn_attention()
    allow_mmengine_checkpoint_types()
    read_urls_as_weights()
    checkpoint_without_reentry()
    resume_without_running_config()
    refuse_mmcv_sync_bn_without_cuda()
    train_spconv_without_cuda()
    run_spconv_on_one_cpu_thread()
    differentiate_spconv_in_evaluation_mode()
    load_spconv_kernels_by_shape()


apply()
