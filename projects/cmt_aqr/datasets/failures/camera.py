"""Failures of cameras: images lost, covered, darkened or blurred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import cv2
import numpy as np
from mmdet3d.registry import TRANSFORMS

from .base import DrawnFailure, SensorFailure, random_stream

# Rows and columns of the mask of an occlusion, and of the random numbers it is interpolated from.
_MASK_SHAPE = (90, 160)
_BLOB_SHAPE = (5, 8)
# Width of the soft edge of a mask, in standard deviations of those numbers.
_EDGE = 0.8
_MUD = (38, 48, 56)  # BGR

# A normal distribution as 256 equally likely values: a look-up turns random bytes into noise.
_NORMAL = np.array([NormalDist().inv_cdf((byte + 0.5) / 256) for byte in range(256)])

# Lengths relative to the image's width: 30 and 40 of the 1600 pixels of nuScenes' images.
_TRAIL_END = 30 / 1600
_STRIPES = 40 / 1600
_TRAIL_SAMPLES = 301


@TRANSFORMS.register_module()
class CameraDrop(SensorFailure):
    """Loss of named cameras, whose images become black; one severity.

    The loss of all cameras is the "view drop" of MoME (Park et al., CVPR 2025). The calibration
    stays.

    Args:
        cameras: names of the cameras as the dataset has them; None for all cameras of the sample.
        severity: 1.
        seed: not used, nothing is drawn.

    Raises:
        ValueError: the list is empty, or has a camera that a sample does not have.
    """

    NEEDS: ClassVar = ('images',)

    def __init__(
        self, *, cameras: Sequence[str] | None = None, severity: int = 1, seed: int = 0
    ) -> None:
        super().__init__(severity=severity, seed=seed)
        if cameras is not None and (isinstance(cameras, str) or not cameras):
            raise ValueError(
                f'CameraDrop: cameras is {cameras!r}; it must be a list of names, or None for all'
            )
        self.cameras = cameras

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnCameraDrop:
        """Returns the loss of all named cameras, in every sample."""
        known = results['images']
        wanted = known if self.cameras is None else self.cameras
        unknown = sorted(set(wanted) - set(known))
        if unknown:
            raise ValueError(
                f'CameraDrop: sample {results["token"]} has no camera {unknown}; its cameras are '
                f'{list(known)}'
            )
        return DrawnCameraDrop(tuple(sorted(wanted)))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(cameras={self.cameras}, seed={self.seed})'


@TRANSFORMS.register_module()
class RandomCameraLoss(SensorFailure):
    """Independent loss of each camera with a probability.

    As "missing camera" of MultiCorrupt (Beemelmanns et al., IV 2024).

    | severity | probability for each camera |
    |----------|-----------------------------|
    | 1 | 0.2 |
    | 2 | 0.4 |
    | 3 | 0.6 |
    """

    SEVERITIES: ClassVar = (0.2, 0.4, 0.6)
    NEEDS: ClassVar = ('images',)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnCameraDrop | None:
        """Returns the lost cameras; a higher severity loses those of a lower one, and more."""
        names = sorted(results['images'])
        lost = rng.random(len(names)) < self.level
        if not lost.any():
            return None
        return DrawnCameraDrop(tuple(name for name, gone in zip(names, lost, strict=True) if gone))


@dataclass(frozen=True)
class DrawnCameraDrop(DrawnFailure):
    """Cameras without a signal."""

    reaches_pasted_objects: ClassVar = True
    cameras: tuple[str, ...]

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """Returns a black image for a lost camera."""
        return np.zeros_like(image) if camera in self.cameras else image

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns 0 for a lost camera."""
        return np.full(shape, camera not in self.cameras, dtype=np.float32)


@TRANSFORMS.register_module()
class Occlusion(SensorFailure):
    """Mud with soft edges over parts of each image.

    MoME covers each image with a mask of lens dirt from the WoodScape dataset, at one severity. In
    place of those masks, smooth noise is thresholded so that it covers the wanted share, anew for
    each camera and sample. Severity 2 comes nearest to MoME's, judged by eye.

    | severity | covered share of each image |
    |---|---|
    | 1 | 0.20 |
    | 2 | 0.35 |
    | 3 | 0.50 |
    """

    SEVERITIES: ClassVar = (0.2, 0.35, 0.5)
    NEEDS: ClassVar = ('images',)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnOcclusion:
        """Returns the occlusion; a higher severity covers what a lower one does, and more."""
        return DrawnOcclusion(self.level, _draw_seed(rng))


@dataclass(frozen=True)
class DrawnOcclusion(DrawnFailure):
    """Partial occlusion of every camera."""

    share: float
    seed: int

    def mask(self, camera: str) -> np.ndarray:
        """(90, 160) float32 over the whole image of a camera: 1 where it is covered, 0 elsewhere.

        The share is that of the pixels with values above one half.
        """
        blobs = random_stream(self.seed, camera).standard_normal(_BLOB_SHAPE)
        smooth = cv2.resize(blobs, _MASK_SHAPE[::-1], interpolation=cv2.INTER_CUBIC)
        above = smooth - np.quantile(smooth, 1 - self.share)
        return np.clip(above / _EDGE + 0.5, 0, 1).astype(np.float32)

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """Blends mud into the image by the mask."""
        height, width = image.shape[:2]
        covered = cv2.resize(self.mask(camera), (width, height))
        mud = np.full_like(image, _MUD)
        return cv2.blendLinear(image, mud, 1 - covered, covered)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns the share of each patch that is not covered."""
        covered = cv2.resize(self.mask(camera), shape[::-1], interpolation=cv2.INTER_AREA)
        return 1 - covered


@TRANSFORMS.register_module()
class Darkness(SensorFailure):
    """Lack of light: every image is dark and noisy.

    After "dark" of MultiCorrupt (Beemelmanns et al., IV 2024), but simpler: the published version
    also applies a gamma of 2, stretches the brightness to the limits of the image, and has noise
    that grows with the brightness. Here the noise is normal, with the strength that the published
    shot and read noise together have in the middle of the darkened range.

    | severity | factor of the brightness | standard deviation of the noise, of full scale |
    |---|---|---|
    | 1 | 0.6 | 0.036 |
    | 2 | 0.4 | 0.045 |
    | 3 | 0.3 | 0.061 |
    """

    SEVERITIES: ClassVar = ((0.6, 0.036), (0.4, 0.045), (0.3, 0.061))
    NEEDS: ClassVar = ('images',)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnDarkness:
        """Returns the same factor for every sample, with noise of its own."""
        return DrawnDarkness(*self.level, seed=_draw_seed(rng))


@dataclass(frozen=True)
class DrawnDarkness(DrawnFailure):
    """Darkness in every camera."""

    brightness: float
    noise: float
    seed: int

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """Darkens the image and adds independent noise to every value."""
        random_bytes = random_stream(self.seed, camera).integers(
            0, 256, image.shape, dtype=np.uint8
        )
        noise = cv2.LUT(random_bytes, np.rint(255 * self.noise * _NORMAL).astype(np.int16))
        dark = cv2.convertScaleAbs(image, alpha=self.brightness)
        return cv2.add(dark, noise, dtype=cv2.CV_8U)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns the share of the light that is left."""
        return np.full(shape, self.brightness, dtype=np.float32)


@TRANSFORMS.register_module()
class MotionBlur(SensorFailure):
    """Blur of every image along a straight line.

    After "motion blur" of MultiCorrupt (Beemelmanns et al., IV 2024), but simpler: the published
    version also moves the LiDAR's points, together and one by one, with σ in metres. The trail is
    the published one: one-sided, half a normal distribution of 100 σ pixels, up to 30 pixels long,
    at an angle drawn within ±45° of the image's rows. Pixels are those of an image 1600 wide; the
    trail scales with the width.

    | severity | σ | healthy share |
    |---|---|---|
    | 1 | 0.06 | 0.85 |
    | 2 | 0.10 | 0.66 |
    | 3 | 0.13 | 0.54 |
    """

    SEVERITIES: ClassVar = (0.06, 0.10, 0.13)
    NEEDS: ClassVar = ('images',)

    def draw(self, results: dict, rng: np.random.Generator) -> DrawnMotionBlur:
        """Returns the blur of every sample, with an angle for each camera."""
        return DrawnMotionBlur(self.level, _draw_seed(rng))


@dataclass(frozen=True)
class DrawnMotionBlur(DrawnFailure):
    """Blur of every camera."""

    sigma: float
    seed: int

    def damage_image(self, image: np.ndarray, camera: str) -> np.ndarray:
        """Convolves the image with the trail; the border is replicated."""
        angle = np.deg2rad(random_stream(self.seed, camera).uniform(-45, 45))
        distances, weights = self._trail()
        kernel = _line_kernel(distances * image.shape[1], weights, angle)
        return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_REPLICATE)

    def camera_health(self, camera: str, shape: tuple[int, int]) -> np.ndarray:
        """Returns the contrast that is left of stripes across the trail.

        The stripes are 1/40 of the image's width apart, about as wide as a pedestrian at 20 m.
        """
        distances, weights = self._trail()
        contrast = abs(weights @ np.exp(2j * np.pi * distances / _STRIPES))
        return np.full(shape, contrast, dtype=np.float32)

    def _trail(self) -> tuple[np.ndarray, np.ndarray]:
        """Distances along the trail relative to the image's width, and weights of sum 1."""
        distances = np.linspace(0, _TRAIL_END, _TRAIL_SAMPLES)
        weights = np.exp(-0.5 * (distances / (self.sigma * 100 / 1600)) ** 2)
        return distances, weights / weights.sum()


def _line_kernel(distances: np.ndarray, weights: np.ndarray, angle: float) -> np.ndarray:
    """(2r + 1, 2r + 1) filter with weights at distances in pixels from its centre, at an angle."""
    reach = int(np.ceil(distances[-1]))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    columns = reach + np.rint(distances * np.cos(angle)).astype(int)
    rows = reach + np.rint(distances * np.sin(angle)).astype(int)
    np.add.at(kernel, (rows, columns), weights)
    return kernel


def _draw_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**63))
