"""Maker of the synthetic database, which appears at its place when it is complete."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from nuscenes.utils import splits

from ...files import dump_json
from ...progress import Progress
from ..worker_pool import worker_pool
from .recorder import SceneTask, record_scene
from .rig import CAMERAS, LIDAR
from .tables import MAP_FILE, TABLE_NAMES, Tables, static_tables
from .taxonomy import CLASSES, IGNORED_CLASSES, ObjectClass

# Official training and validation scene names by version.
SPLITS = {
    'v1.0-mini': (splits.mini_train, splits.mini_val),
    'v1.0-trainval': (splits.train, splits.val),
}
WORLDS = ('plain', 'streets')
SETTINGS_FILE = 'synthetic.json'
MAP_METRES = 600
MAP_PIXELS_PER_METRE = 10


@dataclass(frozen=True)
class DatabaseSettings:
    """Settings that determine the content of a database.

    Attributes:
        version: ``v1.0-mini`` or ``v1.0-trainval``.
        train_scenes, val_scenes: number of scenes; None for all official names of the split.
        keyframes: samples per scene, two per second; at least 2, since velocities are differences.
        sweeps: LiDAR sweeps between keyframes.
        seed: seed of the database.
        image_size: width and height of the images, pixels.
        draw_distance: distance from the ego beyond which no objects exist, metres.
        ignored_objects: maximum number of objects of unscored classes per scene.
        world: ``plain``, in which the shipped weights were trained, or ``streets``.

    Raises:
        ValueError: a value is out of its range.
    """

    version: str = 'v1.0-mini'
    train_scenes: int | None = None
    val_scenes: int | None = None
    keyframes: int = 20
    sweeps: int = 2
    seed: int = 0
    image_size: tuple[int, int] = (352, 198)
    draw_distance: float = 24.0
    ignored_objects: int = 0
    world: str = 'plain'

    def __post_init__(self):
        if self.world not in WORLDS:
            raise ValueError(f'world must be one of {", ".join(WORLDS)}, got {self.world!r}')
        if self.version not in SPLITS:
            raise ValueError(f'version must be one of {", ".join(SPLITS)}, got {self.version!r}')
        for name, official in zip(
            ('train_scenes', 'val_scenes'), SPLITS[self.version], strict=True
        ):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= len(official):
                raise ValueError(
                    f'{name} must be 1 to {len(official)} in {self.version}, got {value}'
                )
        for name, least, most in (
            ('keyframes', 2, 100),
            ('sweeps', 0, 10),
            ('seed', 0, 2**63),
            ('draw_distance', 10, 50),
            ('ignored_objects', 0, 20),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ValueError(f'{name} must be {least} to {most}, got {value}')
        if not all(32 <= side <= 4096 for side in self.image_size):
            raise ValueError(
                f'image_size must be 32 to 4096 pixels each way, got {self.image_size}'
            )

    def scene_names(self) -> dict[str, list[str]]:
        """Returns scene names by split, ``train`` and ``val``."""
        train, val = SPLITS[self.version]
        return dict(train=train[: self.train_scenes], val=val[: self.val_scenes])

    def classes(self) -> tuple[ObjectClass, ...]:
        """Returns the classes of the objects, ignored classes last."""
        return CLASSES + (IGNORED_CLASSES if self.ignored_objects else ())

    def tasks(self, folder: Path) -> list[SceneTask]:
        """Returns a task for each scene, with its own seed, that writes below ``folder``."""
        return [
            SceneTask(
                name=name,
                entropy=(self.seed, _number(f'{split}/{name}')),
                keyframes=self.keyframes,
                sweeps=self.sweeps,
                image_size=self.image_size,
                draw_distance=self.draw_distance,
                ignored_objects=self.ignored_objects,
                world=self.world,
                folder=folder,
            )
            for split, names in self.scene_names().items()
            for name in names
        ]


def make_database(
    out: str | os.PathLike,
    settings: DatabaseSettings,
    *,
    workers: int = 1,
    overwrite: bool = False,
) -> Path:
    """Makes a database, which appears at ``out`` when it is complete.

    Args:
        out: data root to make; may be an empty folder.
        settings: settings of the database.
        workers: number of processes, which does not change the result.
        overwrite: whether to replace a database made by this function.

    Returns:
        The data root.

    Raises:
        FileExistsError: ``out`` is not empty, and ``overwrite`` is not set or it is not a database
            made by this function.
        OSError: the disk is full, the folder cannot be written or a worker was killed; nothing is
            left behind.
        ValueError: ``workers`` is below 1.
    """
    out = Path(out).resolve()
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    _check_target(out, overwrite)
    with _whole_or_nothing(out) as folder:
        for kind, mounts in (('samples', (*CAMERAS, LIDAR)), ('sweeps', (LIDAR,))):
            for mount in mounts:
                (folder / kind / mount.channel).mkdir(parents=True)
        tables = _merge(_record_all(settings.tasks(folder), workers), settings.classes())
        _write_tables(folder / settings.version, tables)
        _write_map(folder / MAP_FILE)
        dump_json(folder / SETTINGS_FILE, asdict(settings), indent=0)
    return out


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f'{out} is a file; name a folder that does not exist yet')
    if any(out.iterdir()):
        if not overwrite:
            raise FileExistsError(
                f'{out} is not empty; choose another folder or ask to overwrite it'
            )
        if not (out / SETTINGS_FILE).is_file():
            raise FileExistsError(
                f'{out} was not made by this tool (it has no {SETTINGS_FILE}), so it is not '
                'overwritten; choose another folder'
            )


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """Yields a hidden folder that replaces ``out`` on success and is removed on failure."""
    out.parent.mkdir(parents=True, exist_ok=True)
    hidden = Path(tempfile.mkdtemp(prefix=f'.{out.name}.partial-', dir=out.parent))
    try:
        made = hidden / out.name
        made.mkdir()
        yield made
        if out.exists():
            out.rename(hidden / 'replaced')
        made.rename(out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _record_all(tasks: list[SceneTask], workers: int) -> Iterator[Tables]:
    """Yields the tables of all scenes in order, with a progress bar over keyframes."""
    cv2.setNumThreads(1)
    progress = Progress('keyframes', sum(task.keyframes for task in tasks))
    try:
        with worker_pool(min(workers, len(tasks))) as mapper:
            for task, tables in zip(tasks, mapper(record_scene, tasks), strict=True):
                yield tables
                progress.move(steps=task.keyframes)
    finally:
        progress.close()


def _merge(parts: Iterable[Tables], classes: Sequence[ObjectClass]) -> Tables:
    merged = {name: [] for name in TABLE_NAMES}
    for part in parts:
        for name, records in part.items():
            merged[name] += records
    return merged | static_tables([log['token'] for log in merged['log']], classes)


def _write_tables(folder: Path, tables: Tables) -> None:
    folder.mkdir()
    for name in TABLE_NAMES:
        dump_json(folder / f'{name}.json', tables[name], indent=0)


def _write_map(path: Path) -> None:
    """Writes a map on which every place is drivable."""
    side = MAP_METRES * MAP_PIXELS_PER_METRE
    done, data = cv2.imencode('.png', np.full((side, side), 255, np.uint8))
    if not done:
        raise RuntimeError(f'OpenCV could not encode {path.name} as PNG.')
    path.parent.mkdir()
    data.tofile(path)


def _number(text: str) -> int:
    """Returns a 64-bit hash of a text, the same in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], 'big')
