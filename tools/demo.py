"""Demonstration of the project from data to official scores; ``make demo`` runs it.

Each step is a command of this project. It makes the synthetic nuScenes database, computes the
features of the frozen shipped backbones once, trains an Adaptive Query Router on them, scores it
and the shipped models with and without sensor failures by the official nuScenes evaluation, and
draws where a shipped router looks.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = Path('data/synthetic_nuscenes')
CMT = Path('configs/cmt/cmt_tiny_synthetic_finetune.py')
ROUTED = Path('configs/cmt_aqr/cmt_aqr_tiny_synthetic_cached.py')
WEIGHTS = Path('projects/cmt_aqr/weights')
ROUTER = WEIGHTS / 'cmt_aqr_tiny_synthetic_failures.pth'
BASE = WEIGHTS / 'cmt_tiny_synthetic.pth'
SHIPPED = {
    'fine-tuned under failures, as shipped': (CMT, WEIGHTS / 'cmt_tiny_synthetic_failures.pth'),
    'the same with AQR, as shipped': (ROUTED, ROUTER),
}
CONDITIONS = ('lidar_drop', 'limited_fov_2', 'object_failure', 'view_drop', 'camera_loss_2')


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
        trained = train(args)
        scores = score({**SHIPPED, 'CMT + AQR, trained just now': (ROUTED, trained)}, args)
        pictures = draw(args)
    except subprocess.CalledProcessError as error:
        command = shlex.join(map(str, error.cmd))
        print(f'demo: this command failed: {command}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('demo: interrupted; the same command keeps the data and features', file=sys.stderr)
        return 130
    print(f'\n{(ROOT / scores).read_text()}')
    print(f'the table and its plot: {scores.parent}')
    print(f'where a shipped router looks, with all sensors and without one: {pictures}')
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
        run('Synthetic nuScenes', 'tools/make_synthetic_nuscenes.py', '--out', DATA)
    if not (ROOT / DATA / 'nuscenes_infos_val.pkl').is_file():
        run('Its info files', 'tools/create_data.py', DATA)


def cache(args: argparse.Namespace) -> tuple[str, str]:
    """Options for features of the frozen backbones, which all models and steps share."""
    return '--cfg-options', f'feature_cache.directory={args.work_dir / "features"}'


def train(args: argparse.Namespace) -> Path:
    """Train the router from the shipped CMT; returns the checkpoint of the last epoch."""
    folder = args.work_dir / ROUTED.stem
    run('Features of the frozen backbones', 'tools/cache_features.py', ROUTED, *cache(args))
    options = ('--work-dir', folder, '--overwrite', '--seed', args.seed, *cache(args))
    run('Training of a router', 'tools/train.py', ROUTED, *options)
    return Path((ROOT / folder / 'last_checkpoint').read_text().strip())


def score(models: dict[str, tuple[Path, Path]], args: argparse.Namespace) -> Path:
    """Score the shipped CMT and other models under all conditions; returns the table."""
    folder = args.work_dir / 'scores'
    named = [word for name, model in models.items() for word in ('--model', name, *model)]
    options = ('--conditions', *CONDITIONS, '--work-dir', folder, '--seed', args.seed, *cache(args))
    run('Official evaluation', 'tools/test_robustness.py', CMT, BASE, *named, *options)
    return folder / 'robustness.md'


def draw(args: argparse.Namespace) -> Path:
    """Draw a frame with boxes and weights of the shipped router; returns the folder."""
    folder = args.work_dir / 'pictures'
    options = ('--work-dir', args.work_dir / 'visualize', '--out', folder)
    run('Pictures', 'tools/visualize.py', 'router', ROUTED, ROUTER, *options)
    return folder


if __name__ == '__main__':
    sys.exit(main())
