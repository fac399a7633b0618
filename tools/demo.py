"""From nothing to an official score: what ``make demo`` runs, each step a command of this project.

Makes the synthetic nuScenes database, trains the tiny CMT for a minute from the shipped weights,
scores it with the official nuScenes evaluation with both sensors and without either, and draws a
frame with what was found.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path('data/synthetic_nuscenes')
CONFIGS = Path('configs/cmt')
CONDITIONS = {
    'LiDAR and cameras': 'cmt_tiny_synthetic.py',
    'view drop (cameras black)': 'cmt_tiny_synthetic_view_drop.py',
    'LiDAR drop (no points)': 'cmt_tiny_synthetic_lidar_drop.py',
}
METRIC = 'NuScenes metric/pred_instances_3d_NuScenes'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', default='0')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    started = time.monotonic()
    try:
        make_data()
        weights = train(args.work_dir, args.seed)
        scores = {
            name: score(config, weights, args.work_dir / Path(config).stem)
            for name, config in CONDITIONS.items()
        }
        picture = draw(args.work_dir)
    except subprocess.CalledProcessError as error:
        command = shlex.join(map(str, error.cmd))
        print(f'demo: stopped, because this failed: {command}', file=sys.stderr)
        return 1
    print(f'\n{table(scores)}\n')
    print(f'picture: {picture}')
    print(f'the demo took {(time.monotonic() - started) / 60:.1f} minutes')
    return 0


def run(title: str, *command: str | Path) -> None:
    """Print and run one command of this project.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    print(f'\n== {title}\n$ python {shlex.join(map(str, command))}', flush=True)
    subprocess.run([sys.executable, *command], cwd=ROOT, check=True)


def make_data() -> None:
    """The database and its info files, each unless it is there."""
    if not (ROOT / DATA / 'v1.0-mini').is_dir():
        run('Synthetic nuScenes', 'tools/make_synthetic_nuscenes.py', '--out', DATA)
    if not (ROOT / DATA / 'nuscenes_infos_val.pkl').is_file():
        run('Its info files', 'tools/create_data.py', DATA)


def train(work_dir: Path, seed: str) -> Path:
    """Train for a minute; the checkpoint of the last epoch."""
    folder = work_dir / 'train'
    config = CONFIGS / 'cmt_tiny_synthetic_demo.py'
    run('A minute of training', 'tools/train.py', config, '--work-dir', folder, '--seed', seed)
    return Path((ROOT / folder / 'last_checkpoint').read_text().strip())


def score(config: str, weights: Path, folder: Path) -> dict[str, float]:
    """The official scores of one condition."""
    run(
        'Official evaluation',
        'tools/test.py',
        CONFIGS / config,
        weights,
        '--work-dir',
        folder,
        '--cfg-options',
        f'test_evaluator.jsonfile_prefix={folder / "results"}',
    )
    latest = max((ROOT / folder).glob('*/run_info.json'), key=os.path.getmtime)
    return json.loads(latest.read_text())['scores'][-1]


def draw(work_dir: Path) -> Path:
    """A validation frame with the boxes found by both sensors together."""
    picture = work_dir / 'frame.png'
    results = next((ROOT / work_dir / 'cmt_tiny_synthetic').rglob('results_nusc.json'))
    token = next(iter(json.loads(results.read_text())['results']))
    run(
        'Picture',
        'tools/visualize_frame.py',
        DATA,
        '--token',
        token,
        '--predictions',
        results,
        '--out',
        picture,
    )
    return picture


def table(scores: dict[str, dict[str, float]]) -> str:
    """mAP and NDS by condition, as Markdown."""
    rows = [
        f'| {name} | {values[f"{METRIC}/mAP"]:.3f} | {values[f"{METRIC}/NDS"]:.3f} |'
        for name, values in scores.items()
    ]
    return '\n'.join(['| tiny CMT, synthetic mini_val | mAP | NDS |', '|---|---|---|', *rows])


if __name__ == '__main__':
    sys.exit(main())
