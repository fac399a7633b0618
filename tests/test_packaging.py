"""Contents of the installed package, and the index of models."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.fileio import load


@pytest.fixture(scope='module')
def package(repo_root, tmp_path_factory) -> Path:
    """`projects/cmt_aqr` as `pip install .` would put it into an environment."""
    folder = tmp_path_factory.mktemp('build')
    command = [sys.executable, 'setup.py', '-q', 'build_py', '--build-lib', str(folder)]
    subprocess.run(command, cwd=repo_root, check=True, capture_output=True)
    return folder / 'projects' / 'cmt_aqr'


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_every_module_config_tool_and_weight_is_packed(package, repo_root):
    """And no benchmark, nor a tool that needs the checkout."""
    mim = package / '.mim'
    assert files(mim / 'configs') == files(repo_root / 'configs')
    checkout_only = {'benchmark.py', 'document_options.py', 'gpu_check.sh', 'setup_env.py'}
    assert files(mim / 'tools') == files(repo_root / 'tools') - checkout_only
    assert {path.name for path in mim.iterdir()} == {'configs', 'tools', 'model-index.yml'}
    own = {name for name in files(package) if not name.startswith('.mim')}
    assert own == files(repo_root / 'projects' / 'cmt_aqr')
    assert files(package.parent) == {f'cmt_aqr/{name}' for name in files(package)}


def test_an_installed_package_finds_its_own_files(package):
    paths = runpy.run_path(str(package / 'paths.py'))
    config = paths['configs']() / 'cmt_aqr' / 'cmt_aqr_voxel0100_r50_800x320_cbgs.py'
    assert config.is_relative_to(package)
    assert Config.fromfile(config).model.pts_bbox_head.aqr
    assert (paths['tools']() / 'train.py').is_relative_to(package)
    assert (paths['weights']() / 'cmt_tiny_synthetic.pth').is_relative_to(package)


def test_a_checkout_finds_its_own_files(repo_root):
    paths = runpy.run_path(str(repo_root / 'projects' / 'cmt_aqr' / 'paths.py'))
    assert paths['configs']() == repo_root / 'configs'
    assert paths['tools']() == repo_root / 'tools'


def test_a_config_of_another_project_stands_on_an_installed_one(package, tmp_path, monkeypatch):
    """The form that docs/install.md shows."""
    monkeypatch.setenv('CMT_AQR_CONFIGS', str(package / '.mim' / 'configs'))
    mine = tmp_path / 'mine.py'
    mine.write_text(
        "_base_ = ['{{$CMT_AQR_CONFIGS:}}/cmt/cmt_voxel0100_r50_800x320_cbgs.py']\n"
        'model = dict(pts_bbox_head=dict(num_query=300))\n'
    )
    cfg = Config.fromfile(mine)
    assert cfg.model.pts_bbox_head.num_query == 300
    assert cfg.custom_imports.imports == ['projects.cmt_aqr']


@pytest.fixture(scope='module')
def models(repo_root) -> list[dict]:
    """The entries of all metafiles that the index names."""
    index = load(repo_root / 'model-index.yml')
    metafiles = [load(repo_root / path) for path in index['Import']]
    for metafile in metafiles:
        collections = {collection['Name'] for collection in metafile['Collections']}
        assert {model['In Collection'] for model in metafile['Models']} == collections
    return [model for metafile in metafiles for model in metafile['Models']]


def test_models_are_named_as_their_configs(models, repo_root):
    assert len({model['Name'] for model in models}) == len(models)
    for model in models:
        assert (repo_root / model['Config']).is_file(), model['Config']
        assert Path(model['Config']).stem == model['Name']


def test_what_is_shipped_has_the_weights_and_scores_that_its_notes_name(models, repo_root):
    shipped = {model['Name']: model for model in models if 'Weights' in model or 'Results' in model}
    notes = (repo_root / 'projects/cmt_aqr/weights/README.md').read_text()
    folder = repo_root / 'projects/cmt_aqr/weights'
    assert {Path(model['Weights']).name for model in shipped.values()} == {
        path.name for path in folder.glob('*.pth')
    }
    assert all(f'`{Path(model["Weights"]).name}`' in notes for model in shipped.values())
    mini_val = re.search(r'\| LiDAR and cameras \| \| ([\d.]+) \| ([\d.]+) \|', notes)
    (result,) = shipped['cmt_tiny_synthetic']['Results']
    scores = [result['Metrics'][name] / 100 for name in ('mAP', 'NDS')]
    assert scores == pytest.approx([float(score) for score in mini_val.groups()])
    sound = re.search(r'30 validation scenes: ([\d.]+) and ([\d.]+) on sound frames', notes)
    (routed,) = shipped['cmt_aqr_tiny_synthetic_failures']['Results']
    (control,) = shipped['cmt_tiny_synthetic_failures_finetune']['Results']
    scores = [result['Metrics']['NDS'] for result in (routed, control)]
    assert scores == [float(score) for score in sound.groups()]
