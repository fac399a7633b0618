"""Demonstration of the project from data to official scores; ``make demo`` runs it.

Each step is a command of this project. It makes synthetic streets as a nuScenes database, detects
and plans in one frame with and without LiDAR, asks the health monitor which sensor is unwell, and
scores the shipped models with and without sensor failures by the official nuScenes evaluation.
Nothing is trained.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path('data/streets_mini')
INFOS = DATA / 'nuscenes_infos_val.pkl'
ON_DATA = ('--cfg-options', f'data_root={DATA}/')
WEIGHTS = Path('projects/cmt_aqr/weights')
CMT = (Path('configs/cmt/cmt_tiny_streets.py'), WEIGHTS / 'cmt_tiny_streets.pth')
PLANNER = 'cmt_tiny_streets_plan'
EXPERTS = (
    Path('configs/cmt/cmt_tiny_streets_experts.py'),
    WEIGHTS / 'cmt_tiny_streets_experts.pth',
)
OTHERS = {
    'fine-tuned under failures': (CMT[0], WEIGHTS / 'cmt_tiny_streets_failures.pth'),
    'experts behind a monitor': EXPERTS,
}
CONDITIONS = ('lidar_drop', 'limited_fov_2', 'object_failure', 'view_drop', 'camera_loss_2')
# A validation frame with a crowd of objects around the car.
FRAME = '3'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--seed', default='0')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    started = time.monotonic()
    pictures = args.work_dir / 'pictures'
    try:
        (ROOT / pictures).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f'demo: --work-dir {args.work_dir}: {error.strerror}', file=sys.stderr)
        return 2
    try:
        make_data()
        detect_and_plan(pictures)
        report_health(pictures)
        scores = score(args)
    except subprocess.CalledProcessError as error:
        command = shlex.join(map(str, error.cmd))
        print(f'demo: this command failed: {command}', file=sys.stderr)
        return 1
    print(f'\n{(ROOT / scores / "robustness.md").read_text()}')
    print(summary(json.loads((ROOT / scores / 'robustness.json').read_text())))
    print(
        'pictures of a frame with boxes and plan, with and without LiDAR, and of the health of '
        f'each sensor: {pictures}'
    )
    print(f'the table and its plot: {scores}')
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
    """Make the database and its info files, unless they exist."""
    if not (ROOT / DATA / 'v1.0-mini').is_dir():
        streets = ('--world', 'streets', '--out', DATA)
        run('Synthetic nuScenes', 'tools/make_synthetic_nuscenes.py', *streets)
    if not (ROOT / DATA / 'nuscenes_infos_val.pkl').is_file():
        run('Its info files', 'tools/create_data.py', DATA, '--with-ego-future')


def detect_and_plan(pictures: Path) -> None:
    """Draw the boxes and the plan of one frame, with and without LiDAR."""
    frame = (INFOS, '--index', FRAME, '--failure', 'lidar_drop_1', '--out', pictures)
    run('Boxes and plan of a frame, with and without LiDAR', 'tools/infer.py', PLANNER, *frame)


def report_health(pictures: Path) -> None:
    """Draw the health that the monitor reports for each sensor of the frame."""
    failures = ('--failures', 'lidar_drop', 'camera_loss_2')
    options = ('--index', FRAME, '--out', pictures / 'health.png')
    command = ('tools/visualize.py', 'health', *EXPERTS, *failures, *options, *ON_DATA)
    run('Health of each sensor', *command)


def score(args: argparse.Namespace) -> Path:
    """Score the shipped models under all conditions; returns the folder of the table."""
    folder = args.work_dir / 'scores'
    named = [word for name, model in OTHERS.items() for word in ('--model', name, *model)]
    options = ('--conditions', *CONDITIONS, '--work-dir', folder, '--seed', args.seed)
    options = (*options, '--overwrite')  # of an earlier version of this project
    run('Official evaluation', 'tools/test_robustness.py', *CMT, *named, *options, *ON_DATA)
    return folder


def summary(results: dict) -> str:
    """What the table says, in words; NDS in points."""
    models = results['models']
    found = {
        name: {condition: 100 * r['scores']['NDS'] for condition, r in model['conditions'].items()}
        for name, model in models.items()
    }
    first = found[results['reference']]
    lost = {name: first['clean'] - nds for name, nds in first.items() if name != 'clean'}
    lines = [
        f'The CMT as shipped has {first["clean"]:.1f} points of NDS with all sensors, and loses '
        + ', '.join(f'{points:.1f} under {name}' for name, points in lost.items())
        + '.'
    ]
    for name, scores in found.items():
        if scores is not first:
            gain = sum(scores[c] - first[c] for c in lost) / len(lost)
            lines.append(f'{name}: {gain:+.1f} points in the mean of these failures.')
    return '\n'.join(lines)


if __name__ == '__main__':
    sys.exit(main())
