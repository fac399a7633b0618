"""Weather and light of a scene: day or night, dry or rain."""

from dataclasses import dataclass, replace

import numpy as np

# Shares of the scenes.
NIGHT_SHARE, RAIN_SHARE = 1 / 8, 1 / 5


@dataclass(frozen=True)
class Weather:
    """Weather and light.

    Attributes:
        light: (3,) vector towards the sun or moon, global; shorter than 1 under clouds.
        exposure: factor of the brightness.
        sky, haze: (3,) RGB colours of the zenith and the horizon, 0 to 1.
        night, rain: whether it is night, and whether it rains.
        haze_distance: distance at which the ground has the colour of the haze, metres.
        noise: standard deviation of the cameras' noise, of a full scale of 1.
        lidar_loss: share of LiDAR returns lost at random at the sensor.
        lidar_fade: further share lost at 60 m, linear in the range.
        spray: share of LiDAR rays through spray that return from it.
    """

    light: np.ndarray
    exposure: float
    sky: np.ndarray
    haze: np.ndarray
    night: bool = False
    rain: bool = False
    haze_distance: float = 80.0
    noise: float = 0.018
    lidar_loss: float = 0.03
    lidar_fade: float = 0.0
    spray: float = 0.0

    @property
    def description(self) -> str:
        """Returns a description in words, as in those of nuScenes' scenes."""
        return f'{"Night" if self.night else "Day"}, {"rain" if self.rain else "dry"}'


def sample_weather(rng: np.random.Generator) -> Weather:
    """Samples the weather of a scene; all draws are made whatever the weather."""
    night, rain = rng.random() < NIGHT_SHARE, rng.random() < RAIN_SHARE
    bearing, height = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(30, 60))
    exposure, strength = rng.uniform(0.8, 1.1), rng.uniform(0.5, 1)
    sky = np.array([0.45, 0.62, 0.90]) * rng.uniform(0.85, 1.1, size=3)
    haze = np.array([0.82, 0.86, 0.90]) * rng.uniform(0.92, 1.05)
    level = np.cos(height)
    light = np.array([level * np.cos(bearing), level * np.sin(bearing), np.sin(height)])
    if rain:
        exposure, light, sky = 0.65 * exposure, 0.3 * light, 0.85 * haze
    if night:
        exposure, light = 0.16 + 0.12 * strength, 0.2 * light
        sky, haze = 0.15 * sky, 0.25 * haze
    weather = Weather(light, float(exposure), sky, haze)
    if rain:
        weather = replace(
            weather, rain=True, haze_distance=45.0, lidar_loss=0.12, lidar_fade=0.6, spray=0.3
        )
    return replace(weather, night=True, noise=0.03) if night else weather
