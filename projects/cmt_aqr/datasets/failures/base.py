"""What every sensor failure has in common.

A failure is drawn first and applied later. It stands at the head of a pipeline, before any loader,
and only decides what is damaged: a `DrawnFailure` at the end of ``results['failures']``. The
project's loaders then apply what was drawn, in this order, to each cloud and to each image as read
from its file. So health is known without any data, and a feature that was stored under what was
drawn can be looked up before anything is loaded.

Of a sample, failures and loaders read and leave:

- ``draw``: which draw of a sample this is; 0 without `DrawIndex`, in training the epoch;
- ``failures``: list of `DrawnFailure`;
- ``camera_names``, ``loaded_shapes``: name, and (height, width) in pixels, of each image in the
  order of ``img``, as read from its file; the loader of images leaves them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform


class DrawnFailure:
    """What was drawn for one sample; subclasses are frozen dataclasses that can be pickled.

    Each method returns what it got, or full health, unless a subclass says otherwise. Inputs are
    never changed in place. Random numbers come from `random_stream` with a number that was drawn,
    so that they do not depend on the order in which clouds and images are loaded.
    """

    @property
    def key(self) -> str:
        """Name and every field, arrays as hashes: equal keys mean equal damage of a sample."""
        fields = (
            f'{field.name}={_spell(getattr(self, field.name))}'
            for field in dataclasses.fields(self)
        )
        return f'{type(self).__name__}({", ".join(fields)})'

    def alter(self, results: dict) -> None:
        """Change calibration or file names of the sample; called once, when it has been drawn."""

    def damage_points(self, points: np.ndarray, to_keyframe: np.ndarray, age: float) -> np.ndarray:
        """One cloud as read from its file, before sweeps are merged.

        Args:
            points: (N, 5) float32: x, y, z in metres in the cloud's own LiDAR frame, intensity,
                ring from 0, the lowest.
            to_keyframe: (4, 4) float64, from the cloud's frame to the LiDAR frame of the keyframe;
                the identity for the keyframe itself.
            age: seconds by which the cloud is older than the keyframe; 0 for the keyframe itself.

        Returns:
            (M, 5) float32; M may be 0.
        """
        return points

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """One image as read from its file, (H, W, 3) uint8 BGR -> the same shape and type."""
        return image

    def lidar_health(self, xy: np.ndarray) -> np.ndarray:
        """Healthy share of the LiDAR at places on the ground.

        Args:
            xy: (..., 2), metres, LiDAR frame of the keyframe before any augmentation.

        Returns:
            (...,) float32 from 0 to 1.
        """
        return np.ones(xy.shape[:-1], dtype=np.float32)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Healthy share of each patch of a camera's image.

        Args:
            camera: name, such as ``CAM_FRONT``.
            shape: (h, w), equal patches over the whole image as read from its file.

        Returns:
            (h, w) float32 from 0 to 1.
        """
        return np.ones(shape, dtype=np.float32)


class SensorFailure(BaseTransform):
    """Draws one kind of failure for a sample; a transform that stands before any loader.

    What is drawn depends on the kind, the seed, the token of the sample and its ``draw`` alone, and
    not on the severity: severities of a kind damage the same frames, unless their probabilities
    differ.

    Args:
        severity: from 1, the mildest, to the number of entries in the kind's `SEVERITIES`.
        seed: another one gives other draws.

    Raises:
        ValueError: for a severity that the kind does not have.
    """

    SEVERITIES: ClassVar[tuple[Any, ...]] = (None,)
    """Value of the parameter at each severity, as the docstring of the kind tells."""

    def __init__(self, *, severity: int = 1, seed: int = 0) -> None:
        if severity not in range(1, len(self.SEVERITIES) + 1):
            raise ValueError(
                f'{type(self).__name__}: severity is {severity!r}; it must be a whole number from '
                f'1 to {len(self.SEVERITIES)}'
            )
        self.severity = severity
        self.seed = seed

    @property
    def level(self) -> Any:
        """The entry of `SEVERITIES`."""
        return self.SEVERITIES[self.severity - 1]

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnFailure | None:
        """What happens to this sample, or None for nothing; must not change the sample."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Appends what was drawn to ``failures``.

        Raises:
            ValueError: if points or images are already loaded.
            KeyError: for a sample without a token.
        """
        name = type(self).__name__
        loaded = [key for key in ('points', 'img') if key in results]
        if loaded:
            raise ValueError(
                f'{name} found {loaded} already loaded: failures stand first in a pipeline'
            )
        drawn = self.draw(results, random_stream(name, self.seed, *draw_of(results)))
        failures = results.setdefault('failures', [])
        if drawn is not None:
            drawn.alter(results)
            failures.append(drawn)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(severity={self.severity}, seed={self.seed})'


def draw_of(results: dict) -> tuple[str, int]:
    """Token of a sample and the number of this draw of it.

    Raises:
        KeyError: for a sample without a token.
    """
    if 'token' not in results:
        raise KeyError(
            'a sample has no token, from which its failures are drawn; info files of '
            "mmdet3d's nuScenes converter have one"
        )
    return results['token'], results.get('draw', 0)


def random_stream(*parts: object) -> np.random.Generator:
    """Random numbers that depend on these parts, as they print, in any process on any machine."""
    digest = hashlib.sha256('/'.join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], 'big'))


def _spell(value: object) -> str:
    """A field in a key; arrays by a hash of what they hold."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    content = f'{value.dtype}{value.shape}'.encode() + value.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
