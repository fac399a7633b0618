"""Packaging of cmt_aqr: `pip install --no-deps --no-build-isolation -e .`, as the set-up does."""

from setuptools import find_namespace_packages, setup

setup(
    name='cmt_aqr',
    version='0.1.0',
    description='Cross Modal Transformer with an Adaptive Query Router, an MMDetection3D plugin',
    license='Apache-2.0',
    python_requires='>=3.10,<3.13',
    # `projects` is a namespace package: it may hold other projects beside this one.
    packages=find_namespace_packages(include=['projects.cmt_aqr', 'projects.cmt_aqr.*']),
    # None on purpose: pip would build mmcv in an isolated environment, where it cannot succeed, and
    # add a second opencv. requirements/ names the versions and tools/setup_env.py installs them.
    install_requires=[],
)
