"""Record what a detector says of each undamaged training frame, for a :class:`.TaughtHead`.

``python -m benchmarks.routing.record_teacher CONFIG FILE``

Shapes: S samples, Q queries.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.planning.record_states import training_loader
from projects.cmt_aqr.cli import arguments, entry, processes
from projects.cmt_aqr.detector import CmtDetector
from projects.cmt_aqr.files import replacing
from projects.cmt_aqr.progress import Progress
from projects.cmt_aqr.task_head import CLASS_BRANCH


def make_parser() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = arguments.make_parser('Record the outputs of a detector on its training samples')
    parser.add_argument('file', type=Path, help='file for the outputs')
    return parser


def main(args: argparse.Namespace) -> None:
    """Record and write the outputs of the last decoder layer."""
    processes.start_process(args.local_rank)
    cfg = arguments.read_config(args)
    arguments.check_checkpoint(cfg.load_from)
    arguments.check_data(cfg, 'train_dataloader')
    runner = processes.build_runner(cfg)
    runner._init_model_weights()
    runner.load_or_resume()
    args.file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.file) as partial:
        torch.save(record(runner.model, training_loader(runner)), partial)


@torch.no_grad()
def record(model: CmtDetector, loader: DataLoader) -> dict[str, Tensor | list[str]]:
    """``tokens`` of the samples, their box ``codes`` (S, Q, 10) and ``logits`` (S, Q, classes)."""
    head, progress = model.pts_bbox_head, Progress('outputs', len(loader))
    tokens, codes, logits = [], [], []
    model.eval()
    for batch in loader:
        data = model.data_preprocessor(batch, False)
        metas = [sample.metainfo for sample in data['data_samples']]
        (task,) = head(*model.extract_feat(data['inputs']), metas, all_layers=False).tasks
        tokens += [meta['token'] for meta in metas]
        codes.append(head.box_coder.join(task)[-1].cpu())
        logits.append(task[CLASS_BRANCH][-1].cpu())
        progress.move()
    progress.close()
    return dict(tokens=tokens, codes=torch.cat(codes), logits=torch.cat(logits))


if __name__ == '__main__':
    entry.run(main, make_parser(), resume='the same command starts over')
