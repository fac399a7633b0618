"""Base classes of the sensor failures.

A failure is drawn first and applied later. It stands at the head of a pipeline, before any loader,
and only decides what is damaged: it appends a `DrawnFailure` to ``results['failures']``. The
project's loaders then apply all drawn failures, in this order, to each cloud and each image as read
from its file. So the health of the sensors is known without any data, and features that were cached
under the same failures can be looked up before anything is loaded.

Keys of a sample that failures and loaders share:

- ``draw``: number of this draw of the sample; 0 without `DrawIndex`, in training the epoch;
- ``failures``: list of `DrawnFailure`;
- ``camera_names``, ``loaded_shapes``: name and (height, width) in pixels of each image as decoded,
  in the order of ``img``; set by the loader of images.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, ClassVar

import numpy as np
from mmcv.transforms import BaseTransform

from ...samples import sample_name


class DrawnFailure:
    """Failure drawn for one sample; subclasses are frozen dataclasses that can be pickled.

    The methods here change nothing and report full health; a subclass overrides what it damages.
    Inputs are never changed in place. Random numbers come from `random_stream` with a number that
    was drawn, so that they do not depend on the order in which clouds and images are loaded.
    """

    reaches_pasted_objects: ClassVar[bool] = False
    """Whether the same damage can be done to objects pasted into the sample after loading."""

    @property
    def key(self) -> str:
        """Name and fields, arrays as hashes; equal keys mean equal damage of a sample."""
        fields = (
            f'{field.name}={_spell(getattr(self, field.name))}'
            for field in dataclasses.fields(self)
        )
        return f'{type(self).__name__}({", ".join(fields)})'

    def alter(self, results: dict) -> None:
        """Changes calibration or file names of the sample; called once, after the draw."""

    def damage_points(self, points: np.ndarray, to_keyframe: np.ndarray, age: float) -> np.ndarray:
        """Returns the damaged cloud; called for each cloud as read, before sweeps are merged.

        Args:
            points: (N, 5) float32: x, y, z in metres in the cloud's own LiDAR frame, intensity,
                ring from 0, the lowest.
            to_keyframe: (4, 4) float64, from the cloud's frame to the LiDAR frame of the keyframe.
            age: age of the cloud relative to the keyframe, seconds.

        Returns:
            (M, 5) float32; M may be 0.
        """
        return points

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """Returns the damaged image; (H, W, 3) uint8 BGR, as read -> the same shape and type."""
        return image

    def lidar_health(self, xy: np.ndarray) -> np.ndarray:
        """Returns the healthy share of the LiDAR at places on the ground.

        Args:
            xy: (..., 2), metres, LiDAR frame of the keyframe before any augmentation.

        Returns:
            (...,) float32 from 0 to 1.
        """
        return np.ones(xy.shape[:-1], dtype=np.float32)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns the healthy share of each patch of a camera's image.

        Args:
            camera: name of the camera.
            shape: number of patches (h, w) that divide the image as read from its file.

        Returns:
            (h, w) float32 from 0 to 1.
        """
        return np.ones(shape, dtype=np.float32)


class SensorFailure(BaseTransform):
    """Base class of transforms that draw a failure for a sample; they stand before any loader.

    A draw depends only on the class, the seed, the token of the sample and its ``draw``, not on the
    severity: all severities of a class damage the same frames, unless their probabilities differ.

    Args:
        severity: from 1, the mildest, to the number of entries in `SEVERITIES`.
        seed: seed of the draws.

    Raises:
        ValueError: the class does not have this severity.
    """

    SEVERITIES: ClassVar[tuple[Any, ...]] = (None,)
    """Parameters of each severity."""

    NEEDS: ClassVar[tuple[str, ...]] = ()
    """Keys that a sample must have, and that must not be empty."""

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
        """Entry of `SEVERITIES`."""
        return self.SEVERITIES[self.severity - 1]

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnFailure | None:
        """Returns the failure of this sample, or None; must not change the sample."""
        raise NotImplementedError

    def transform(self, results: dict) -> dict:
        """Appends the drawn failure to ``failures``.

        Raises:
            ValueError: points or images are already loaded, or the sample lacks a sensor or a key
                that the failure needs.
            KeyError: the sample has no token.
        """
        name = type(self).__name__
        lacking = [key for key in self.NEEDS if results.get(key) in (None, {})]
        if lacking:
            raise ValueError(
                f'{name}: sample {sample_name(results)} has no {" and no ".join(lacking)}, without '
                'which this failure cannot occur: leave it out'
            )
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
    """Returns the token of a sample and the number of its draw.

    Raises:
        KeyError: the sample has no token.
    """
    if 'token' not in results:
        raise KeyError(
            'a sample has no token, which seeds the draw of its failures; the info file of the '
            'dataset must give each sample one'
        )
    return results['token'], results.get('draw', 0)


def random_stream(*parts: object) -> np.random.Generator:
    """Returns a generator seeded by the printed parts, the same in any process on any machine."""
    digest = hashlib.sha256('/'.join(map(str, parts)).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], 'big'))


def _spell(value: object) -> str:
    """Text of a field in a key; a hash of the content for an array."""
    if not isinstance(value, np.ndarray):
        return repr(value)
    content = f'{value.dtype}{value.shape}'.encode() + value.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
