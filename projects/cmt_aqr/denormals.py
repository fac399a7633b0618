"""A setting of CPUs that every command makes first; imports with torch alone."""

import torch


def flush_denormals() -> None:
    """Let CPUs take numbers below the smallest normal one, 1e-38 in float32, for zero.

    In a trained decoder most attention weights are such numbers, because the logits of one sensor
    lie far below those of the other, and CPUs compute with them an order of magnitude more slowly:
    one backward pass of attention took 130 ms with them and 18 ms without, on two cores. Threads
    take the setting from the one that starts them, so this comes before any computation.
    """
    torch.set_flush_denormal(True)
