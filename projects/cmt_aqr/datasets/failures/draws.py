"""Random failures in training: the number of the draw, and one failure of several."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .base import SensorFailure, draw_of, random_stream

_UNSET = -1
_RANDOM_DRAWS = 2**31


@TRANSFORMS.register_module()
class DrawIndex(BaseTransform):
    """Number of the current draw of a sample, from which its failures are drawn.

    It stands before the failures, and numbers draws by the epoch. The epoch lies in shared memory,
    which persistent workers see. The `DrawIndexHook` sets it, see
    :mod:`projects.cmt_aqr.hooks.draw_index_hook`. Without the hook every epoch would repeat the
    same failures, so the transform raises until the epoch is set. Code that reads samples without a
    Runner calls :meth:`set_epoch` itself.

    Args:
        variants: number of different draws of a sample, after which they repeat, so that features
            of damaged samples can be cached; None for a new draw in every epoch.
        by_epoch: whether draws are numbered by the epoch; otherwise the number is random, from
            NumPy's global generator, for training loops that count iterations.

    Raises:
        ValueError: ``variants`` is below 1.
    """

    def __init__(self, *, variants: int | None = None, by_epoch: bool = True) -> None:
        if variants is not None and variants < 1:
            raise ValueError(f'DrawIndex: variants is {variants}; it must be None or at least 1')
        self.variants = variants
        self.by_epoch = by_epoch
        self._epoch = torch.full((1,), _UNSET, dtype=torch.int64)

    def set_epoch(self, epoch: int) -> None:
        """Sets the number of the draws from now on, in all workers."""
        # Shared here, before the first workers start: a copy of the dataset would lose it.
        self._epoch.share_memory_().fill_(epoch)

    def transform(self, results: dict) -> dict:
        """Adds ``draw``.

        Raises:
            RuntimeError: no epoch was set.
        """
        if not self.by_epoch:
            results['draw'] = int(np.random.randint(self.variants or _RANDOM_DRAWS))
            return results
        epoch = int(self._epoch)
        if epoch == _UNSET:
            raise RuntimeError(
                'DrawIndex has no epoch, so that every epoch would repeat the same failures; '
                "to train, add dict(type='DrawIndexHook') to the custom_hooks of the config; to "
                'read single samples, call set_epoch(0) or use `tools/visualize.py browse`'
            )
        results['draw'] = epoch if self.variants is None else epoch % self.variants
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(variants={self.variants}, by_epoch={self.by_epoch})'


@TRANSFORMS.register_module()
class RandomFailure(BaseTransform):
    """One failure of a list, with equal probabilities, or none; for training.

    A failure that is listed twice is twice as likely. Over `LidarDrop` and `CameraDrop` this is the
    masked-modal training of CMT (Yan et al., ICCV 2023, section 3.4), which never drops both.
    The draw depends on the seed, the sample's token and its ``draw``. Two of these transforms in a
    row, with different seeds, can damage both sensors.

    Args:
        prob: probability that one of the failures is drawn. It may still spare the sample, as
            `ObjectFailure` spares half of the frames.
        failures: configs of the failures.
        seed: seed of the choice.

    Raises:
        ValueError: the probability is outside of [0, 1], the list is empty, or a transform is not a
            failure.
    """

    def __init__(self, *, prob: float, failures: Sequence[dict], seed: int = 0) -> None:
        if not 0 <= prob <= 1:
            raise ValueError(f'RandomFailure: prob is {prob}; it must be from 0 to 1')
        if not failures:
            raise ValueError('RandomFailure: failures is empty; leave the transform out')
        self.prob = prob
        self.failures = [TRANSFORMS.build(failure) for failure in failures]
        self.seed = seed
        for failure in self.failures:
            if not isinstance(failure, SensorFailure):
                raise ValueError(f'RandomFailure: {failure} is not a sensor failure')

    def transform(self, results: dict) -> dict:
        """Appends the drawn failure, if any, to ``failures``."""
        rng = random_stream(type(self).__name__, self.seed, *draw_of(results))
        results.setdefault('failures', [])
        if rng.random() >= self.prob:
            return results
        return self.failures[rng.integers(len(self.failures))](results)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(prob={self.prob}, failures={self.failures}, seed={self.seed})'
        )
