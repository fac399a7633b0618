"""Packaging of cmt_aqr: `pip install --no-deps --no-build-isolation -e .`, as the set-up does."""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


# Tools that work in a checkout only: they need `benchmarks`, `docs` or `requirements`.
CHECKOUT_TOOLS = ('benchmark.py', 'document_options.py', 'gpu_check.sh', 'setup_env.py')


class BuildWithConfigs(build_py):
    """Also packs configs, tools and the index of models into `.mim`, as OpenMMLab's packages do.

    An editable installation finds them in the checkout, see `projects/cmt_aqr/paths.py`.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, 'projects', 'cmt_aqr', '.mim')
        shutil.rmtree(target, ignore_errors=True)  # of an earlier build
        for name in ('configs', 'tools'):
            ignored = shutil.ignore_patterns('__pycache__', *CHECKOUT_TOOLS)
            shutil.copytree(ROOT / name, target / name, ignore=ignored)
        shutil.copy(ROOT / 'model-index.yml', target)


setup(
    name='cmt_aqr',
    version='0.1.0',
    description='Cross Modal Transformer with an Adaptive Query Router, an MMDetection3D plugin',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    # `projects` is a namespace package: it may hold other projects beside this one.
    packages=find_namespace_packages(include=['projects.cmt_aqr', 'projects.cmt_aqr.*']),
    package_data={
        'projects.cmt_aqr.doctor': ['*.json'],
        'projects.cmt_aqr.reporting': ['*.html'],
        'projects.cmt_aqr.weights': ['*.pth', '*.md'],
    },
    cmdclass={'build_py': BuildWithConfigs},
    # None on purpose: pip would build mmcv in an isolated environment, where it cannot succeed, and
    # add a second opencv. requirements/ names the versions and tools/setup_env.py installs them.
    install_requires=[],
    # The versions are in requirements/encoders.txt and export.txt. Older releases of transformers
    # name the weights of vision towers differently.
    extras_require={'encoders': ['transformers>=5.20'], 'export': ['onnx', 'onnxruntime']},
)
