"""Score models with intact and with failing sensors, and compare them.

Every model is tested without a failure and under every failure and severity of a suite, on the same
frames, by the official evaluation. A pass over the frames tests 16 conditions and computes the
features of a sensor again only where its data differ. An interrupted command resumes after the last
complete pass. Tables (Markdown, CSV, JSON) and a plot are written when all models
are tested; the first model is the baseline.
"""

import argparse
import copy
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import _startup

_startup.prepare()

from mmengine.config import Config

import projects.cmt_aqr  # noqa: F401  (registers what configs name)
from projects.cmt_aqr.cli import arguments, config_changes, entry, processes
from projects.cmt_aqr.cli.work_dir import lock_work_dir
from projects.cmt_aqr.datasets.failures.suite import PROTOCOLS, Row, protocol
from projects.cmt_aqr.evaluation.conditions import choose_rows
from projects.cmt_aqr.evaluation.frames import choose_frames, scenes_of
from projects.cmt_aqr.evaluation.robustness import CLEAN, MEAN, Comparison, ModelResult
from projects.cmt_aqr.evaluation.robustness_plot import draw_comparison
from projects.cmt_aqr.evaluation.robustness_report import to_csv, to_json, to_markdown
from projects.cmt_aqr.evaluation.robustness_run import ModelRun, sample_tokens, version_of
from projects.cmt_aqr.files import write_text
from projects.cmt_aqr.process_group import leave_process_group
from projects.cmt_aqr.usage_error import UsageError


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser(__doc__.splitlines()[0])
    parser.set_defaults(seed=0)
    parser.add_argument(
        'checkpoints',
        nargs='+',
        metavar='checkpoint',
        help='weights for the config, named in the tables after their files; the first one is '
        'the baseline',
    )
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        default=[],
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='another model with its own name and config; can be repeated',
    )
    arguments.add_inference_arguments(parser)
    parser.add_argument('--suite', choices=PROTOCOLS, default='all', help='suite of failures')
    parser.add_argument(
        '--conditions',
        nargs='+',
        metavar='NAME',
        help='only these failures (fog) and single severities (fog_2) of the suite',
    )
    parser.add_argument(
        '--frames',
        type=int,
        help='number of validation frames, evenly distributed over the scenes (default: all)',
    )
    parser.add_argument(
        '--draws', type=int, default=1000, help='number of bootstrap resamples for the intervals'
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='replace results of other frames, checkpoints or seeds in the work dir',
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Test the models under all conditions without a result, and report."""
    processes.start_process(args.local_rank)
    runs = make_runs(args)
    with lock_work_dir(str(work_dir(args)), task='test'):
        if not args.overwrite:
            for run in runs:
                run.check_records()
        for run in runs:
            run.run()
        # The others need not wait: intervals take longer than a collective may.
        leave_process_group()
        if processes.is_first_process():
            report([run.result(args.draws) for run in runs], runs[0])


def make_runs(args: argparse.Namespace) -> list[ModelRun]:
    """The tests of all models, on the same frames.

    Raises:
        UsageError: a file, frame or condition does not exist, or the models have different frames.
    """
    if args.draws < 1:
        raise UsageError(f'--draws {args.draws}: at least 1 is needed')
    folder = work_dir(args)
    runs = []
    for name, config, checkpoint in list_models(args):
        own_args = argparse.Namespace(**{**vars(args), 'config': config})
        cfg = arguments.read_config(own_args, cached=['test_dataloader'])
        arguments.check_checkpoint(checkpoint)
        arguments.check_data(cfg, 'test_dataloader')
        check_metric(cfg)
        run = ModelRun(
            name=name,
            cfg=cfg,
            checkpoint=checkpoint,
            folder=folder / folder_name(name),
            indices=frames_of(cfg, args),
            rows=rows_of(cfg, args),
            seed=args.seed,
            inference=arguments.inference_settings(args),
        )
        first = runs[0] if runs else run
        if run.made_of['frames_sha256'] != first.made_of['frames_sha256']:
            raise UsageError(
                f'{name} is tested on other frames than {first.name}: the test dataset of {config} '
                f'is not that of {first.cfg.filename}'
            )
        runs.append(run)
    return runs


def check_metric(cfg: Config) -> None:
    """Check that the scores are nuScenes', from which the tables and intervals are computed.

    Raises:
        UsageError: the test dataset is scored by another metric.
    """
    if not arguments.is_scored(cfg, 'test_dataloader'):
        raise UsageError(
            f"the test_evaluator of {cfg.filename} is not nuScenes' metric, and mAP, NDS and their "
            "intervals need nuScenes' tables; with another metric, test one failure at a time: "
            'python tools/test.py CONFIG CHECKPOINT --failure NAME'
        )


def work_dir(args: argparse.Namespace) -> Path:
    """Folder for tables and records; by default one for each suite."""
    return Path(args.work_dir or Path('work_dirs') / f'robustness_{args.suite}')


def list_models(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Name, config and checkpoint of each model.

    Raises:
        UsageError: two models have the same name.
    """
    names = short_names(args.checkpoints)
    models = [
        *(
            (name, args.config, checkpoint)
            for name, checkpoint in zip(names, args.checkpoints, strict=True)
        ),
        *map(tuple, args.model),
    ]
    ((name, number),) = Counter(folder_name(name) for name, _, _ in models).most_common(1)
    if number > 1:
        raise UsageError(
            f'{number} models are called {name}; give each a name of its own by --model NAME '
            'CONFIG CHECKPOINT'
        )
    return models


def short_names(paths: Sequence[str]) -> list[str]:
    """Shortest ends of the paths that differ from each other, without the suffix."""
    parts = [Path(path).with_suffix('').parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ['/'.join(path[-length:]) for path in parts]
        if len(set(names)) == len(names):
            break
    return names


def folder_name(name: str) -> str:
    """Name of a model with characters that are safe in paths."""
    return re.sub(r'[^\w.+-]+', '_', name)


def frames_of(cfg: Config, args: argparse.Namespace) -> list[int] | None:
    """Indices of the frames to test; None for all.

    Raises:
        UsageError: there are fewer frames.
    """
    if args.frames is None:
        return None
    dataset = cfg.test_dataloader.dataset
    tables = Path(dataset.data_root, version_of(cfg))
    try:
        return choose_frames(scenes_of(sample_tokens(cfg), tables), args.frames, args.seed)
    except ValueError as error:
        raise UsageError(f'--frames: {error}') from error


def rows_of(cfg: Config, args: argparse.Namespace) -> list[Row]:
    """Failures and severities under which a model is tested.

    Raises:
        UsageError: a condition is not in the suite, or the loaders of the config cannot apply
            failures.
    """
    dataset = cfg.test_dataloader.dataset
    infos = str(Path(dataset.data_root, dataset.ann_file))
    try:
        rows = choose_rows(protocol(args.suite, ann_file=infos, seed=args.seed), args.conditions)
    except ValueError as error:
        raise UsageError(f'--conditions: {error}') from error
    config_changes.add_failure(copy.deepcopy(cfg), rows[0].failure)
    return rows


def report(results: Sequence[ModelResult], first: ModelRun) -> None:
    """Write the tables and the plot."""
    comparison = Comparison(
        models=results, rows=first.rows, frames=first.made_of['frames'], seed=first.seed
    )
    folder = first.folder.parent
    for suffix, text in (
        ('md', to_markdown(comparison)),
        ('csv', to_csv(comparison)),
        ('json', to_json(comparison)),
    ):
        write_text(folder / f'robustness.{suffix}', text)
    draw_comparison(comparison, folder / 'robustness.png')
    for result in results:
        clean, mean = result.kept[CLEAN], result.kept[MEAN]
        print(f'{result.name}: clean NDS {100 * clean.nds:.1f}, mRA {mean.ra:.3f}')
    print(f'all in {folder / "robustness.md"}')


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='the same command tests the missing conditions')
