"""The page of a run: what it shows, what it says is missing, and how a browser renders it."""

import json
import re
import runpy
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from robustness_fixture import make_comparison

from projects.cmt_aqr.evaluation.robustness_report import to_json
from projects.cmt_aqr.reporting import find_run, make_page
from projects.cmt_aqr.usage_error import UsageError

PREFIX = 'NuScenes metric/pred_instances_3d_NuScenes/'
CAR = {f'{PREFIX}car_AP_dist_{2.0**i}': 0.2 * (i + 2) for i in (-1, 0, 1, 2)}  # 0.5 on average
SCORES = {
    'phase': 'val',
    'iteration': 20,
    f'{PREFIX}mAP': 0.25,
    f'{PREFIX}NDS': 0.375,
    f'{PREFIX}mATE': 0.5,
    f'{PREFIX}car_trans_err': 0.625,
    f'{PREFIX}car_vel_err': float('nan'),
    **CAR,
}
INFO = {
    'command': 'tools/train.py configs/a.py',
    'config': 'configs/a.py',
    'load_from': None,
    'resume': False,
    'seed': 5,
    'deterministic': False,
    'commit': 'f' * 40,
    'changed': True,
    'versions': {'torch': '2.13.0'},
    'machine': {'platform': 'Linux', 'threads': 2, 'gpus': []},
    'processes': 1,
    'scores': [],
}
RATE = {'start': [1e-3, 2e-3], 'highest': [5e-3, 5e-3], 'end': None}
AUDIT = {
    'state': 'passed',
    'iteration': 20,
    'values_equal_at_end': True,
    'modules': [
        {'part': 'backbone', 'frozen': 1500000, 'trainable': 0, 'rate': None},
        {'part': 'head', 'frozen': 0, 'trainable': 12345, 'rate': RATE},
    ],
    'frozen_parameters': 7,
    'frozen_buffers': 3,
    'filled_from': {'cmt.pth': 10},
    'violations': [],
}
MEASURE = """addEventListener('load', () => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  document.title = JSON.stringify({
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    pictures: all('img').map((img) => img.naturalWidth),
    plots: all('svg').map((svg) => svg.getBoundingClientRect().height > 50),
    cut: all('.scroll').filter((box) => box.scrollWidth > box.clientWidth).length,
  });
})"""
ALL_MISSING = [
    'No scores.',
    'No freeze audit.',
    'No training log.',
    'No record of attention.',
    'Not tested under failures.',
    'No pictures.',
    'No config.',
]


def write_run(folder, info=INFO):
    folder.mkdir(parents=True)
    (folder / 'run_info.json').write_text(json.dumps(info))
    return folder


@pytest.fixture(scope='module')
def work_dir(tmp_path_factory):
    """A work dir with a training that wrote everything, and a later test; read it only."""
    tmp_path = tmp_path_factory.mktemp('runs')
    run = write_run(tmp_path / 'work' / '20260101_000000', {**INFO, 'scores': [SCORES]})
    (run / 'freeze_audit.json').write_text(json.dumps(AUDIT))
    lines = [{'loss': 9 - i, 'lr': 1e-3, 'w_lidar': 0.1, 'step': i} for i in range(3)]
    lines.append({'NDS': 0.375, 'step': 1})  # a validation
    (run / 'vis_data').mkdir()
    (run / 'vis_data' / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    (run / 'vis_data' / 'config.py').write_text("name = 'a < b'\n")
    shares = [[0.125, 0.875], [0.5, 0.25]]
    record = {'phase': 'train', 'iteration': 0, 'lidar_share': shares}
    (run / 'routing.jsonl').write_text(json.dumps(record) + '\n')
    test = {**SCORES, 'phase': 'test', 'iteration': 0, f'{PREFIX}NDS': 0.4375}
    write_run(tmp_path / 'work' / '20260102_000000', {**INFO, 'seed': 6, 'scores': [test]})
    (tmp_path / 'work' / 'robustness.json').write_text(to_json(make_comparison('cmt', 'aqr')))
    cv2.imwrite(str(tmp_path / 'work' / 'frame.png'), np.full((40, 2800, 3), 128, np.uint8))
    return tmp_path / 'work'


@pytest.fixture(scope='module')
def page(work_dir):
    return make_page(find_run(work_dir), 'my run')


def text_of(page):
    """Words of a page, without markup."""
    return re.sub(r'\s+', ' ', re.sub(r'<[^>]+>', ' ', page.split('</style>', 1)[1]))


def test_a_page_shows_all_that_the_runs_wrote(page):
    text = text_of(page)
    assert not any(missing in text for missing in ALL_MISSING)
    assert 'backbone 1,500,000 0 – – –' in text
    assert 'head 0 12,345 0.001 to 0.002 0.005 –' in text
    assert 'test. AP is' in text  # the later one
    assert '0.438 NDS' in text
    assert 'car 0.500 0.62 – – – –' in text
    assert 'seed 5' in text  # of the training
    assert '{} with changes'.format('f' * 12) in text
    assert 'mean 0.250' in text
    assert re.search(r'fog 0.400 0.300 0.600 0.410 0.310 \S+ \+1.0 \[', text)
    assert '0.88' in text  # the LiDAR share of a head
    assert 'a &lt; b' in page
    assert page.count('data:image/jpeg;base64,') == 1


def test_scores_without_nds_are_shown_too(tmp_path):
    """Those of `DetectionMetric`, for data of one's own."""
    scores = dict(phase='test', iteration=0, mAP=0.5, mATE=0.25, AP_van=0.75, AP_crate=0.25)
    write_run(tmp_path / '20260101_000000', {**INFO, 'scores': [scores]})
    text = text_of(make_page(find_run(tmp_path), 'yard'))
    assert 'No scores.' not in text
    assert '0.500 mAP' in text
    assert 'NDS' not in text.split('Freezing')[0]
    assert 'Average precision by the rule of nuScenes, test' in text


def test_a_page_needs_nothing_from_elsewhere(page):
    loads = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')\s>]+)', page)
    outside = [link for link in loads if not link.startswith(('data:', '#'))]
    assert outside == []
    assert '<script' not in page


def test_missing_parts_say_how_to_make_them(tmp_path):
    run = find_run(write_run(tmp_path / 'run'))
    text = text_of(make_page(run, 'bare'))
    assert [missing for missing in ALL_MISSING if missing not in text] == []
    assert 'python tools/test.py configs/a.py CHECKPOINT' in text


def test_violations_are_shown(tmp_path):
    run = write_run(tmp_path / 'run')
    violated = {**AUDIT, 'state': 'violated', 'violations': ['backbone.conv moved']}
    (run / 'freeze_audit.json').write_text(json.dumps(violated))
    text = text_of(make_page(find_run(run), 'bad'))
    assert 'violated freeze audit' in text
    assert 'backbone.conv moved' in text
    assert 'bit for bit' not in text


def test_one_run_is_shown_without_the_others(work_dir):
    text = text_of(make_page(find_run(work_dir / '20260102_000000'), 'test alone'))
    assert 'seed 6' in text
    assert 'No freeze audit.' in text


def test_a_folder_without_runs_is_an_error(tmp_path):
    with pytest.raises(UsageError, match=r'no run_info\.json'):
        find_run(tmp_path)


@pytest.fixture
def browser():
    names = ('chromium', 'chromium-browser', 'google-chrome')
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f'no browser: none of {", ".join(names)} is on PATH (apt-get install chromium)')
    return found


def test_a_browser_renders_the_page_of_the_tool(
    repo_root, work_dir, tmp_path, browser, monkeypatch, capsys
):
    page = tmp_path / 'out' / 'page.html'
    command = ['report.py', str(work_dir), '--out', str(page), '--title', 'my run']
    monkeypatch.setattr(sys, 'argv', command)
    runpy.run_path(str(repo_root / 'tools' / 'report.py'), run_name='__main__')
    assert capsys.readouterr().out == f'made {page}\n'

    # A script of the test measures the page: it has no script of its own.
    copy = tmp_path / 'measured.html'
    copy.write_text(page.read_text().replace('</body>', f'<script>{MEASURE}</script></body>'))
    shot = tmp_path / 'page.png'
    options = ['--headless', '--no-sandbox', '--disable-gpu', '--window-size=1280,2400']
    dom = subprocess.run(
        [browser, *options, f'--user-data-dir={tmp_path}/profile', '--dump-dom', copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    found = json.loads(re.search(r'<title>(.*?)</title>', dom)[1])
    assert found == {'overflow': 0, 'pictures': [1400], 'plots': [True] * 4, 'cut': 0}

    subprocess.run(
        [browser, *options, f'--user-data-dir={tmp_path}/profile', f'--screenshot={shot}',
         page.as_uri()],
        capture_output=True,
        timeout=120,
    )  # fmt: skip
    picture = cv2.imread(str(shot))
    assert picture.shape == (2400, 1280, 3)
    assert 0.01 < (picture.min(axis=2) < 128).mean() < 0.3  # ink on paper
