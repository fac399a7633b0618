"""From checks to lines, a table and JSON."""

import json

import torch

from projects.cmt_aqr.doctor.result import Comparison, Result
from projects.cmt_aqr.doctor.running import Check, as_data, failed_import, markdown, run_check

CPU = torch.device('cpu')


def line(result=None):
    return run_check(Check('name', lambda device: result), CPU)


def stop(device):
    raise RuntimeError(f'first line\n{device} has stopped')


def test_the_comparison_nearest_to_its_limit_is_shown():
    comparisons = [Comparison('large', 0.5, 10.0), Comparison('near', 0.09, 0.1)]
    text = markdown([line(Result(what='this', comparisons=comparisons))])
    assert '| name | this; worst: near | 9.0e-02 | 1.0e-01 | ' in text
    assert text.endswith('| ok |')


def test_all_that_is_wrong_stands_below_the_table():
    comparisons = [Comparison('a', 2.0, 1.0), Comparison('b', 0.0, 0.0), Comparison('c', 3.0, 1.0)]
    text = markdown([line(Result(what='this', comparisons=comparisons, faults=['absent']))])
    table, _, failures = text.partition('\n\n')
    assert table.endswith('| FAILED |')
    assert failures.splitlines() == [
        'name: absent',
        'name: a: error 2.00e+00, allowed 1.00e+00',
        'name: c: error 3.00e+00, allowed 1.00e+00',
    ]


def test_what_is_not_a_number_fails_and_is_worst():
    result = Result(what='', comparisons=[Comparison('a', 2, 1), Comparison('b', float('nan'), 1)])
    assert not result.passed
    assert result.worst.name == 'b'
    json.loads(json.dumps(as_data(line(result)), allow_nan=False))


def test_a_check_that_stops_is_a_failed_line():
    stopped = run_check(Check('name', stop), CPU)
    assert not stopped.result.passed
    assert list(stopped.result.faults) == ['cpu has stopped']
    assert 'first line' in as_data(stopped)['traceback']


def test_an_import_that_fails_is_a_failed_line():
    failed = failed_import('Traceback\nImportError: no mmcv')
    assert not failed.result.passed
    assert markdown([failed]).endswith('import: ImportError: no mmcv')


def test_a_skipped_check_is_no_failure():
    skipped = line(Result(what='no bfloat16', skipped=True))
    assert skipped.result.passed
    assert markdown([skipped]).endswith('| skipped |')
