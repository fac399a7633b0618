"""Arithmetic of a forward pass on the CPU by part of a model.

Counted are multiplications and additions of matrix products, convolutions and attention; not norms,
activations and the like, nor a backward pass. On the CPU sparse convolutions are products of torch,
which its counter sees; on a GPU they would be left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(parts: Mapping[str, nn.Module], run: Callable[[], object]) -> dict[str, int]:
    """Operations of each part while ``run`` lets all of them do their forward pass.

    Args:
        parts: by name, none inside of another.
        run: is called once, without gradients.
    """
    with torch.no_grad(), ExitStack() as stack:
        counters = {name: stack.enter_context(_counted(part)) for name, part in parts.items()}
        run()
    return {
        name: sum(counter.get_total_flops() for counter in passes)
        for name, passes in counters.items()
    }


@contextmanager
def _counted(part: nn.Module) -> Iterator[list[FlopCounterMode]]:
    """A counter for each forward pass of a part."""
    counters: list[FlopCounterMode] = []
    with ExitStack() as at_work:  # ends a pass that an error has ended

        def start(*_: object) -> None:
            counter = FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH)
            counters.append(at_work.enter_context(counter))

        handles = (
            part.register_forward_pre_hook(start),
            part.register_forward_hook(lambda *_: at_work.close()),
        )
        try:
            yield counters
        finally:
            for handle in handles:
                handle.remove()


def _count_attention(
    query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object
) -> int:
    """By the shapes of its inputs; torch's counter knows other kernels of attention only."""
    return sdpa_flop_count(query, key, value)


_UNKNOWN_TO_TORCH = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_attention,
}
