"""From nothing to an official score: what ``make demo`` runs, each step a command of this project.

Makes the synthetic nuScenes database, trains the Adaptive Query Router on the frozen shipped CMT,
and the same CMT without a router by the same recipe, scores all three with the official nuScenes
evaluation with both sensors and without either, and draws a frame with what was found.
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
SHIPPED = Path('projects/cmt_aqr/weights/cmt_tiny_synthetic.pth')
CMT = Path('configs/cmt/cmt_tiny_synthetic.py')
FINE_TUNED = Path('configs/cmt/cmt_tiny_synthetic_finetune.py')
ROUTED = Path('configs/cmt_aqr/cmt_aqr_tiny_synthetic.py')
CONDITIONS = {'LiDAR and cameras': None, 'view drop': 'camera', 'LiDAR drop': 'lidar'}
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
        models = {
            'CMT as shipped': (CMT, SHIPPED),
            'CMT fine-tuned': (FINE_TUNED, train(FINE_TUNED, args)),
            'CMT + AQR': (ROUTED, train(ROUTED, args)),
        }
        scores = {
            name: [
                score(config, weights, args.work_dir / 'test' / f'{config.stem}_{drop}', drop)
                for drop in CONDITIONS.values()
            ]
            for name, (config, weights) in models.items()
        }
        pictures = [draw(args.work_dir, drop) for drop in CONDITIONS.values()]
    except subprocess.CalledProcessError as error:
        command = shlex.join(map(str, error.cmd))
        print(f'demo: stopped, because this failed: {command}', file=sys.stderr)
        return 1
    print(f'\n{table(scores)}\n')
    print('leverage: share of query-head pairs with 5 to 95 % of their attention on LiDAR,')
    print('which alone a bias can still move from one sensor to the other')
    print(f'pictures of CMT + AQR: {", ".join(map(str, pictures))}')
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


def train(config: Path, args: argparse.Namespace) -> Path:
    """Train from the shipped weights; the checkpoint of the last epoch."""
    folder = args.work_dir / config.stem
    run('Training', 'tools/train.py', config, '--work-dir', folder, '--seed', args.seed)
    return Path((ROOT / folder / 'last_checkpoint').read_text().strip())


def score(config: Path, weights: Path, folder: Path, drop: str | None) -> dict[str, float]:
    """The official scores of one model under one condition."""
    run(
        'Official evaluation',
        'tools/test.py',
        config,
        weights,
        '--work-dir',
        folder,
        *(['--drop', drop] if drop else []),
        '--cfg-options',
        f'test_evaluator.jsonfile_prefix={folder / "results"}',
    )
    latest = max((ROOT / folder).glob('*/run_info.json'), key=os.path.getmtime)
    return json.loads(latest.read_text())['scores'][-1]


def draw(work_dir: Path, drop: str | None) -> Path:
    """A validation frame with the boxes that the routed model found under one condition."""
    picture = work_dir / (f'without_{drop}.png' if drop else 'frame.png')
    results = next((ROOT / work_dir / 'test' / f'{ROUTED.stem}_{drop}').rglob('results_nusc.json'))
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


def table(scores: dict[str, list[dict[str, float]]]) -> str:
    """mAP / NDS by model and condition, and the leverage of a bias, as Markdown."""
    head = ['synthetic mini_val: mAP / NDS', *CONDITIONS, 'leverage']
    rows = []
    for name, by_condition in scores.items():
        cells = [
            f'{values[f"{METRIC}/mAP"]:.3f} / {values[f"{METRIC}/NDS"]:.3f}'
            for values in by_condition
        ]
        rows.append([name, *cells, f'{by_condition[0]["leverage"]:.3f}'])
    lines = [head, ['---'] * len(head), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


if __name__ == '__main__':
    sys.exit(main())
