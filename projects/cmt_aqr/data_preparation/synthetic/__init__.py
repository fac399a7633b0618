"""Synthetic database in nuScenes' format, rendered by one ray caster for all sensors.

Scenes (:mod:`.world`) are boxes of ten classes (:mod:`.taxonomy`) on a plane. A recorder
(:mod:`.recorder`) renders them with a LiDAR (:mod:`.lidar`) and six cameras (:mod:`.cameras`) into
files and tables (:mod:`.tables`); :func:`make_database` writes the database.
"""

from .maker import DatabaseSettings, make_database
from .taxonomy import CLASSES, LOOK_ALIKES

__all__ = ['CLASSES', 'LOOK_ALIKES', 'DatabaseSettings', 'make_database']
