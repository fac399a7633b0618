"""Record of the tensors that a checkpoint really fills."""

from collections.abc import Iterator

from torch import nn
from torch.utils.hooks import RemovableHandle

from .names import join


class LoadWatch:
    """Records which tensors of a model are filled while checkpoints are loaded, until closed.

    It observes every module's own loading, after names have been converted and kernels permuted.
    It therefore covers ``load_from``, resumed runs and ``init_cfg`` of type `Pretrained`, and does
    not count tensors that are missing or have the wrong shape, for which mmengine only warns.
    ``source`` is the origin of the tensors of the next load, and may be reassigned.
    """

    def __init__(self, model: nn.Module, source: str = 'checkpoint') -> None:
        self.source = source
        self._filled: dict[tuple[nn.Module, str], str] = {}
        self._handles = list(self._watch(model))

    def close(self) -> None:
        """Stop watching and keep the record."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def filled(self, model: nn.Module) -> dict[str, str]:
        """Source of each filled tensor, by full dotted name."""
        return {
            join(prefix, name): self._filled[module, name]
            for prefix, module in model.named_modules(remove_duplicate=False)
            for name in _own_tensors(module)
            if (module, name) in self._filled
        }

    def _watch(self, model: nn.Module) -> Iterator[RemovableHandle]:
        watched = {module for module in model.modules() if any(_own_tensors(module))}
        loading = {}

        # Functions rather than methods: a deep copy of the model, such as the one of EMA, shares
        # functions but would copy this object along with its methods. Copied modules are not
        # watched.
        def before(module, state_dict, prefix, metadata, strict, missing, unexpected, errors):
            if module in watched:
                loading[module] = (state_dict, prefix, errors)

        def after(module, incompatible_keys):
            if module not in loading:
                return
            state_dict, prefix, errors = loading.pop(module)
            for name in _own_tensors(module):
                key = prefix + name
                # Messages of torch and spconv about a tensor that was not copied.
                rejected = any(f'mismatch for {key}:' in e or f'"{key}"' in e for e in errors)
                if key in state_dict and not rejected:
                    self._filled[module, name] = self.source

        for module in watched:
            yield module.register_load_state_dict_pre_hook(before)
            yield module.register_load_state_dict_post_hook(after)


def _own_tensors(module: nn.Module) -> Iterator[str]:
    for tensors in (module._parameters, module._buffers):
        yield from (name for name, tensor in tensors.items() if tensor is not None)
