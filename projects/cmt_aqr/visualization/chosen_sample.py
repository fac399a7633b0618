"""Command-line options that select a sample of the test data."""

import argparse

from mmengine.dataset import BaseDataset

from ..usage_error import UsageError


def add_sample_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options ``--index N`` and ``--token TOKEN``."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument('--index', type=int, default=0, help='index in the test data, from 0')
    which.add_argument('--token', help='token of a sample of the test data')


def find_sample(dataset: BaseDataset, args: argparse.Namespace) -> int:
    """Index of the selected sample.

    Raises:
        UsageError: the sample does not exist.
    """
    if args.token is None:
        if not 0 <= args.index < len(dataset):
            raise UsageError(f'--index must be 0 to {len(dataset) - 1}, got {args.index}')
        return args.index
    tokens = [dataset.get_data_info(index)['token'] for index in range(len(dataset))]
    if args.token not in tokens:
        raise UsageError(
            f'the {len(tokens)} samples of the test data have no token {args.token!r}; the first '
            f'is {tokens[0]!r}'
        )
    return tokens.index(args.token)
