"""A small database in nuScenes' format, made by one ray caster for all sensors.

The scenes (:mod:`.world`) are boxes of ten classes (:mod:`.taxonomy`) on a plane; a LiDAR
(:mod:`.lidar`) and six cameras (:mod:`.cameras`) record them (:mod:`.recorder`) into the official
tables (:mod:`.tables`), and :func:`make_database` writes the whole.
"""

from .maker import DatabaseSettings, make_database
from .taxonomy import CLASSES, LOOK_ALIKES

__all__ = ['CLASSES', 'LOOK_ALIKES', 'DatabaseSettings', 'make_database']
