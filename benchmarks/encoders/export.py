"""Write the tower of a pretrained encoder as a folder for ``VisionEncoder(pretrained=...)``.

``python -m benchmarks.encoders.export CONFIG CHECKPOINT FOLDER``
"""

import sys

from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint

import projects.cmt_aqr  # noqa: F401  (registers what the config names)


def main(config: str, checkpoint: str, folder: str) -> None:
    """Build the model, load its weights and save the tower of its ``img_backbone``."""
    init_default_scope('mmdet3d')
    model = MODELS.build(Config.fromfile(config).model)
    load_checkpoint(model, checkpoint, map_location='cpu', strict=True)
    model.img_backbone.tower.save_pretrained(folder)


if __name__ == '__main__':
    main(*sys.argv[1:])
