"""Train a planner on states: ``python -m benchmarks.planning.train_on_states CONFIG STATES...``.

A planner that reads nothing but the states of :mod:`benchmarks.planning.record_states` takes
thousands of steps in minutes on a CPU. The checkpoint is one of the config, for `tools/test.py` and
`tools/test_robustness.py`.

Shapes: S samples, L decoder layers, Q object queries, T waypoints, C channels.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.logging import print_log
from mmengine.optim import build_optim_wrapper
from mmengine.runner import save_checkpoint
from torch import Tensor, nn

from projects.cmt_aqr.cli import arguments, entry, processes
from projects.cmt_aqr.detector import CmtDetector
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.hooks.run_info_hook import code_version
from projects.cmt_aqr.progress import Progress
from projects.cmt_aqr.usage_error import UsageError

from .record_states import check

WARM_UP = 0.05
"""share of the steps in which the learning rate rises"""


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser('Train a planner on recorded decoder states')
    parser.add_argument(
        'states', type=Path, nargs='+', help='files of recorded states, of one database each'
    )
    parser.add_argument('--steps', type=entry.number(int, 1), default=4000)
    parser.add_argument('--batch-size', type=entry.number(int, 1), default=32)
    return parser


def main(args: argparse.Namespace) -> None:
    """Read the states, train, and write ``planner.pth`` into the work directory."""
    processes.start_process(args.local_rank)
    cfg = arguments.read_config(args)
    check(cfg)
    states = read(args.states, cfg.load_from)
    runner = processes.build_runner(cfg)
    runner._init_model_weights()
    runner.load_or_resume()
    fit(runner.model, states, cfg.optim_wrapper, steps=args.steps, batch_size=args.batch_size)
    passes = args.steps * args.batch_size / len(states['mask'])
    meta = dict(seed=runner.seed, epoch=round(passes), cfg=cfg.pretty_text, **code_version())
    with replacing(Path(cfg.work_dir) / 'planner.pth') as partial:
        save_checkpoint(dict(meta=meta, state_dict=runner.model.state_dict()), str(partial))


def read(files: Sequence[Path], detector: str) -> dict[str, Tensor]:
    """States of all samples of some files.

    Args:
        files: files of :mod:`benchmarks.planning.record_states`.
        detector: checkpoint whose states they must be.

    Raises:
        UsageError: a file is missing, or has the states of another detector.
    """
    parts = []
    for file in files:
        if not file.is_file():
            raise UsageError(
                f'{file} does not exist; python -m benchmarks.planning.record_states makes it'
            )
        recorded = torch.load(file)
        if recorded['detector'] != detector:
            raise UsageError(
                f'{file} has the states of {recorded["detector"]}, and load_from is {detector}'
            )
        parts.append(recorded['states'])
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def fit(
    model: CmtDetector,
    states: dict[str, Tensor],
    optim_wrapper: dict,
    *,
    steps: int,
    batch_size: int,
) -> None:
    """Trains the planner of a detector on random batches of recorded states.

    The learning rates are those of the optimizer wrapper, after a warm-up along a cosine to zero.
    """
    optim = build_optim_wrapper(model, optim_wrapper)
    rates = [group['lr'] for group in optim.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optim.optimizer, rates, total_steps=steps, pct_start=WARM_UP, cycle_momentum=False
    )
    progress, device = Progress('steps', steps), model.data_preprocessor.device
    model.planner.train()
    for step in range(steps):
        chosen = torch.randint(len(states['hidden']), (batch_size,))
        batch = {name: value[chosen].to(device) for name, value in states.items()}
        loss = model.planner.loss(plan(model.planner, batch), batch)['loss_plan']
        optim.update_params(loss)
        schedule.step()
        progress.move(f'loss {loss.item():.3f}' if step % 100 == 0 else '')
    progress.close()
    print_log(f'loss of the last step {loss.item():.3f}', logger='current')


def plan(planner: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(B, T, 3): plan from recorded states."""
    hidden = batch['hidden'].float().transpose(0, 1)
    states = SimpleNamespace(hidden=hidden, query_pos=batch['query_pos'].float())
    return planner(SimpleNamespace(states=states), None, batch)


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='the same command starts over')
