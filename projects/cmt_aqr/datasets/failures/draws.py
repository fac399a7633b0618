"""Failures at random in training: which draw of a sample it is, and one failure out of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.transforms import BaseTransform
from mmdet3d.registry import TRANSFORMS

from .base import SensorFailure, draw_of, random_stream

_UNSET = -1


@TRANSFORMS.register_module()
class DrawIndex(BaseTransform):
    """Numbers the draws of a sample by the epoch; stands before the failures.

    The epoch lies in shared memory, where workers that live on from epoch to epoch see it. The
    `DrawIndexHook` sets it, see :mod:`projects.cmt_aqr.hooks.draw_index_hook`. Without it every
    epoch would repeat the same failures, so there is no sample before the epoch is set. Code that
    reads samples without a Runner calls :meth:`set_epoch` itself.

    Args:
        variants: draws of a sample that differ, after which they begin anew; so that features of
            damaged samples can be kept. None for a new draw every epoch.

    Raises:
        ValueError: for fewer than one variant.
    """

    def __init__(self, *, variants: int | None = None) -> None:
        if variants is not None and variants < 1:
            raise ValueError(f'DrawIndex: variants is {variants}; it must be None or at least 1')
        self.variants = variants
        self._epoch = torch.full((1,), _UNSET, dtype=torch.int64)

    def set_epoch(self, epoch: int) -> None:
        """Number the draws that begin from now on, in all workers."""
        # Shared here, before the first workers start: a copy of the dataset would lose it.
        self._epoch.share_memory_().fill_(epoch)

    def transform(self, results: dict) -> dict:
        """Adds ``draw``.

        Raises:
            RuntimeError: no epoch was set.
        """
        epoch = int(self._epoch)
        if epoch == _UNSET:
            raise RuntimeError(
                'DrawIndex was told no epoch, so that every epoch would repeat the same failures; '
                "to train, add dict(type='DrawIndexHook') to the custom_hooks of the config; to "
                'read single samples, call set_epoch(0)'
            )
        results['draw'] = epoch if self.variants is None else epoch % self.variants
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(variants={self.variants})'


@TRANSFORMS.register_module()
class RandomFailure(BaseTransform):
    """One failure of a list, each as likely as the others, or none; for training.

    Deterministic in the same way as each failure: the draw depends on the seed, the sample's token
    and its ``draw``. Two of them in a row, with seeds of their own, can damage both sensors.

    Args:
        prob: probability that one of the failures is drawn. It may still spare the sample, as
            `ObjectFailure` spares half of the frames.
        failures: their configs.
        seed: of the choice.

    Raises:
        ValueError: for a probability outside of [0, 1], an empty list, or a transform that is no
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
                raise ValueError(f'RandomFailure: {failure} is no sensor failure')

    def transform(self, results: dict) -> dict:
        """Appends what was drawn, if anything, to ``failures``."""
        rng = random_stream(type(self).__name__, self.seed, *draw_of(results))
        results.setdefault('failures', [])
        if rng.random() >= self.prob:
            return results
        return self.failures[rng.integers(len(self.failures))](results)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(prob={self.prob}, failures={self.failures}, seed={self.seed})'
        )
