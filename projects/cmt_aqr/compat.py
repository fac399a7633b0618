"""Patches that run the pinned OpenMMLab stack on current torch, also on CPU, and load safely.

Importing this module applies all of them once; no installed file is edited. Each patch is a
function that documents the fault and its upstream thread. Packages that are not installed are
skipped, so that ``geometry`` and ``transformer`` import with torch alone.

With these patches no checkpoint can execute code: neither a run's own on resume nor an external one
(``load_from``, ``init_cfg=dict(type='Pretrained')``, a URL).
"""

import functools
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

_MINIMUM_TORCH = (2, 6)


def is_installed(package: str) -> bool:
    """Whether a package is installed; a package refused by an import hook is not."""
    try:
        return find_spec(package) is not None
    except ImportError:
        return False


def _replace(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace ``owner.name`` by ``make(original)``, unless already done."""
    original = getattr(owner, name)
    if getattr(original, '_replaced_by', None) == __name__:
        return
    replacement = functools.wraps(original)(make(original))
    replacement._replaced_by = __name__
    setattr(owner, name, replacement)


def require_safe_torch_load() -> None:
    """Refuse a torch whose ``torch.load`` by default executes code in a file.

    mmengine 0.10.7 calls ``torch.load`` without ``weights_only``; since torch 2.6 that means True
    (https://github.com/open-mmlab/mmengine/issues/1655).

    Raises:
        ImportError: torch is older than 2.6.
    """
    version = tuple(int(part) for part in torch.__version__.split('.')[:2])
    if version < _MINIMUM_TORCH:
        raise ImportError(
            f'torch {torch.__version__} executes code hidden in checkpoints when loading them; '
            f'install torch {".".join(map(str, _MINIMUM_TORCH))} or newer'
        )


def allow_mmengine_checkpoint_types() -> None:
    """Let ``torch.load(weights_only=True)`` read the data that mmengine stores with the weights.

    Checkpoints of mmengine 0.10.7 contain their log as ``HistoryBuffer`` objects over numpy arrays
    and cannot be resumed under torch >= 2.6 (https://github.com/open-mmlab/mmengine/issues/1655;
    the open https://github.com/open-mmlab/mmengine/pull/1650 disables the safety instead). All of
    it is data except for ``getattr``, by which a buffer refers to its statistics functions; a
    lookup of only those functions replaces it.
    """
    if not is_installed('mmengine'):
        return
    import numpy as np
    from mmengine.logging import HistoryBuffer

    reconstruct = np.empty(0).__reduce__()[0]
    scalar = np.float64(0).__reduce__()[0]
    # numpy 2 moved numpy.core to numpy._core; files may come from either.
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
    """Replacement of ``getattr`` in a checkpoint: a statistics function of ``HistoryBuffer``.

    Raises:
        pickle.UnpicklingError: the checkpoint requests anything else.
    """
    from mmengine.logging import HistoryBuffer

    # A buffer registers the defaults (min, max, current, mean) when it is made.
    allowed = HistoryBuffer()._statistics_methods
    if owner is not HistoryBuffer or name not in allowed:
        raise pickle.UnpicklingError(
            f'the checkpoint requests attribute {name!r} of {owner!r}; only the statistics '
            f'{sorted(allowed)} of HistoryBuffer are allowed'
        )
    return allowed[name]


def leave_out_cudnn_attention() -> None:
    """Remove cuDNN from the kernels available to ``scaled_dot_product_attention``.

    With a mask, cuDNN has two faults in float16 and bfloat16: since torch 2.11, NaN in the gradient
    of the queries for some lengths on H100 and H200
    (https://github.com/pytorch/pytorch/issues/196678); and a float32 mask is read as if it had the
    type of the queries (https://github.com/pytorch/pytorch/pull/191612). CMT masks its
    self-attention in training. The flash and memory-efficient kernels remain.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def read_urls_as_weights() -> None:
    """Read checkpoints from web addresses with ``weights_only=True``.

    For http(s), torchvision:// and open-mmlab:// mmengine calls
    ``torch.hub.load_state_dict_from_url``, whose ``weights_only`` is still False by default. The
    option was added in https://github.com/pytorch/pytorch/pull/98479; no mmengine thread was found.
    """
    if not is_installed('mmengine'):
        return
    from mmengine.runner import checkpoint

    _replace(checkpoint, 'load_url', lambda load: functools.partial(load, weights_only=True))


def checkpoint_without_reentry() -> None:
    """Let ``activation_checkpointing=[...]`` of a Runner train the modules that it wraps.

    mmengine 0.10.7 uses the re-entrant form of ``torch.utils.checkpoint.checkpoint``, which gives
    the weights inside no gradient if no input requires one: always in a module that takes images,
    and in any module after a frozen one. The other form has no such condition
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
    """Prevent ``Runner.resume`` from executing the config text of a checkpoint.

    It executes ``meta['config']`` as Python to compare ``gpu_ids``, which only mmcv 1.x wrote
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


def scale_learning_rate_by_accumulation() -> None:
    """Let ``auto_scale_lr`` count the batches whose gradients are accumulated.

    mmengine 0.10.7 divides by the samples of all processes in one iteration, whatever
    ``optim_wrapper.accumulative_counts`` is; no mmengine thread was found.
    """
    if not is_installed('mmengine'):
        return
    from mmengine.runner import Runner

    def make(scale_lr: Callable) -> Callable:
        def scale(runner: Runner, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
            counts = getattr(optim_wrapper, '_accumulative_counts', 1)
            if auto_scale_lr and counts > 1:
                base = auto_scale_lr['base_batch_size'] / counts
                auto_scale_lr = {**auto_scale_lr, 'base_batch_size': base}
            scale_lr(runner, optim_wrapper, auto_scale_lr)

        return scale

    _replace(Runner, 'scale_lr', make)


def refuse_mmcv_sync_bn_without_cuda() -> None:
    """Refuse to build mmcv's synchronised batch normalisation if mmcv has no CUDA operators.

    This project calls none of them, so its set-up builds mmcv without them. ``sync_bn='mmcv'`` or
    ``norm_cfg=dict(type='MMSyncBN')`` in a config would fail only in the first training step.
    """
    if not (is_installed('mmcv') and is_installed('mmcv._ext')):
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
    """Let spconv run and train on machines without a GPU.

    spconv 2.3.8 requests the current CUDA stream even in its CPU backward pass, and torch raises
    (https://github.com/traveller59/spconv/issues/366). CPU kernels ignore the handle, which is 0.
    Its builds for CUDA choose an algorithm that has no CPU kernel, unless a layer names another.
    """
    if not is_installed('spconv'):
        return
    from spconv.pytorch import conv, ops, pool

    if not torch.cuda.is_available():
        conv.CPU_ONLY_BUILD = pool.CPU_ONLY_BUILD = True

    def make(current_stream: Callable[[], int]) -> Callable[[], int]:
        return lambda: current_stream() if torch.cuda.is_available() else 0

    _replace(ops, 'get_current_stream', make)


def run_spconv_on_one_cpu_thread() -> None:
    """Run spconv's sparse convolutions on CPU in one thread; with more they give wrong values.

    In spconv 2.3.8 the threads of a scatter-add share a pointer (``buf`` and ``out_ptr`` in
    ``spconv/csrc/sparse/gather.py`` are declared outside the loop body and captured by reference).
    Occasionally, rows of the output are wrong by their own magnitude. No upstream thread was found.
    All other operations keep their threads.
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
    """Let sparse convolutions use autograd whenever it is enabled, in either mode.

    spconv 2.3.8 takes ``training`` to mean that a backward pass follows
    (``spconv/pytorch/conv.py``). In evaluation mode on CUDA it calls its kernel outside autograd,
    so that no layer before a frozen one gets a gradient. A submanifold convolution then also builds
    its index pairs without those of the backward pass. Layers with the same ``indice_key`` share
    the pairs of the first one: a trainable layer after a frozen one passes an empty table to its
    backward kernel. Values are the same in both cases, and no gradient is kept unless needed. No
    upstream thread was found.

    On a CPU, the same argument selects where the bias is added: in evaluation mode in the kernels,
    which refuse it ("cpu don't support act and bias").
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
    """Permute a sparse kernel on load only if its shape shows that it has spconv 1's layout.

    mmdet3d permutes (kz, ky, kx, in, out) to (out, kz, ky, kx, in) on every load of a state dict
    without ``_metadata`` version 2. A plain dict of correct kernels, such as
    ``dict(model.state_dict())`` or the output of a converter, then has the wrong shapes and is
    dropped with a warning under ``strict=False``
    (https://github.com/open-mmlab/mmdetection3d/issues/1502,
    https://github.com/open-mmlab/mmdetection3d/issues/1610). Kernels with the module's shape were
    saved by spconv 2. A kernel whose five sizes are equal fits both layouts and is left to mmdet3d.
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
    """Whether the stored kernel of ``module`` has the module's shape in spconv 2's layout only."""
    stored = state_dict.get(f'{prefix}weight')
    kernel = getattr(module, 'weight', None)
    if stored is None or kernel is None:
        return False
    return stored.shape == kernel.shape and len(set(stored.shape)) > 1


def name_the_inferencer_of_several_cameras() -> None:
    """Let MMDetection3D's inferencer for LiDAR and cameras say what to use with several cameras.

    Its loader reads a single image (``MultiModalityDet3DInferencerLoader`` of mmdet3d 1.4.0). With
    another pipeline its error asks for that loader, which would not help.
    """
    if not is_installed('mmdet3d'):
        return
    from mmdet3d.apis import MultiModalityDet3DInferencer

    def make(initialise: Callable) -> Callable:
        def init_pipeline(inferencer: MultiModalityDet3DInferencer, cfg: Any) -> Any:
            steps = [step['type'] for step in cfg.test_dataloader.dataset.pipeline]
            if 'LoadMultiViewImages' in steps:
                raise ValueError(
                    'MultiModalityDet3DInferencer reads one camera; for several, use `detect` of '
                    'projects.cmt_aqr.apis or tools/infer.py'
                )
            return initialise(inferencer, cfg)

        return init_pipeline

    _replace(MultiModalityDet3DInferencer, '_init_pipeline', make)


def apply() -> None:
    """Apply every patch; a second call changes nothing."""
    require_safe_torch_load()
    leave_out_cudnn_attention()
    allow_mmengine_checkpoint_types()
    read_urls_as_weights()
    checkpoint_without_reentry()
    resume_without_running_config()
    scale_learning_rate_by_accumulation()
    refuse_mmcv_sync_bn_without_cuda()
    train_spconv_without_cuda()
    run_spconv_on_one_cpu_thread()
    differentiate_spconv_in_evaluation_mode()
    load_spconv_kernels_by_shape()
    name_the_inferencer_of_several_cameras()


apply()
