"""Scenes: a street with its traffic, on which the ego vehicle drives.

Poses are functions of time, so sensors can record at any moment. Objects exist, for the sensors and
in the annotations, only while their centre is within the draw distance of the ego; scenery does so
farther out.
"""

from dataclasses import dataclass

import numpy as np

from .actors import Actor, Track, Visible
from .crowd import Crowd
from .ground import Ground, paint_ground
from .population import add_ignored, add_parked, add_pedestrians, add_scenery, add_traffic
from .raycast import Box
from .roadway import Roadway, sample_roadway
from .traffic import TIME_STEP
from .weather import Weather, sample_weather

# Range of global x and y of the ego at time 0, well inside the map, metres.
SCENE_ORIGIN = (280.0, 320.0)
# Time of traffic before the first keyframe and after the last one, seconds.
WARM_UP, AFTER = 3.0, 1.0
# Distance from the ego up to which scenery exists, metres.
SCENERY_DISTANCE = 45.0


@dataclass(frozen=True)
class Scene:
    """Street, actors and weather of a scene.

    Attributes:
        path: poses of the ego vehicle's rear axle.
        actors: objects, then scenery.
        draw_distance: distance from the ego beyond which objects do not exist, metres.
        roadway: the road.
        weather: weather and light.
        ground: colours of the ground.
    """

    path: Track
    actors: tuple[Actor, ...]
    draw_distance: float
    roadway: Roadway
    weather: Weather
    ground: Ground

    @property
    def description(self) -> str:
        """Returns the description of the scene in the tables."""
        return f'Synthetic street. {self.weather.description}.'

    def in_range(self, times: np.ndarray) -> np.ndarray:
        """(A, T) bool: whether each actor exists at each of the times (T,) in seconds."""
        ego = self.path.poses(times)[:, :2]
        reach = [self.draw_distance if a.annotated else SCENERY_DISTANCE for a in self.actors]
        gaps = [np.hypot(*(a.track.poses(times)[:, :2] - ego).T) for a in self.actors]
        return np.array(gaps) < np.array(reach)[:, None]

    def visible(self, time: float) -> list[Visible]:
        """Returns the actors in range at ``time`` seconds."""
        times = np.array([time])
        ego_x, ego_y, ego_yaw = self.path.poses(times)[0]
        cos, sin = np.cos(ego_yaw), np.sin(ego_yaw)
        seen = []
        for index in np.flatnonzero(self.in_range(times)[:, 0]):
            actor = self.actors[index]
            x, y, yaw = actor.track.poses(times)[0] - (ego_x, ego_y, ego_yaw)
            centre = np.array([cos * x + sin * y, cos * y - sin * x, actor.size[2] / 2])
            seen.append(Visible(int(index), actor, Box(centre, actor.size, yaw)))
        return seen


def sample_scene(
    rng: np.random.Generator,
    keyframe_times: np.ndarray,
    *,
    draw_distance: float,
    ignored_objects: int = 0,
) -> Scene:
    """Samples a scene.

    Each object stays in range for one interval of at least two keyframes, so that the official
    velocity, a difference of annotations, is defined for every box. Objects of ignored classes have
    a generator of their own, so that everything else is the same without them.

    Args:
        rng: generator of the scene.
        keyframe_times: (K,) seconds, ascending, K >= 2.
        draw_distance: metres.
        ignored_objects: maximum number of objects of :data:`.classes.IGNORED_CLASSES`.

    Returns:
        A scene in which boxes of the objects and of the ego never overlap.
    """
    end = keyframe_times[-1] + AFTER
    times = np.arange(keyframe_times[0] - WARM_UP, end + TIME_STEP, TIME_STEP)
    pose = np.array([*rng.uniform(*SCENE_ORIGIN, size=2), rng.uniform(-np.pi, np.pi)])
    roadway, weather = sample_roadway(rng, pose, end), sample_weather(rng)
    crowd = Crowd(times, keyframe_times, draw_distance)
    add_traffic(rng, crowd, roadway)
    add_parked(rng, crowd, roadway)
    add_pedestrians(rng, crowd, roadway)
    scenery = rng.spawn(1)[0]
    ground = paint_ground(rng, roadway, crowd.ego.samples[:, :2], wet=weather.rain)
    add_ignored(rng.spawn(1)[0], crowd, roadway, ignored_objects)
    crowd.range = SCENERY_DISTANCE
    add_scenery(scenery, crowd, roadway)
    return Scene(crowd.ego, tuple(crowd.actors), draw_distance, roadway, weather, ground)
