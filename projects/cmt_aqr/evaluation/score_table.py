"""Scores of an evaluation, sorted by class, and their table for the screen."""

import re
from collections.abc import Mapping

from ..markdown import align

# Columns of errors, by their names in the metrics.
ERRORS = dict(trans='ATE', scale='ASE', orient='AOE', vel='AVE', attr='AAE')
_MOST_OTHERS = 30


def sort_scores(metrics: Mapping[str, float]) -> tuple[dict, dict[str, dict[str, float]]]:
    """Overall scores by short name, and AP (mean over the distances) and errors by class."""
    overall, classes, distances = {}, {}, {}
    for key, value in metrics.items():
        name = key.rsplit('/', 1)[-1]
        if match := re.fullmatch(r'(\w+)_AP_dist_[\d.]+', name):
            distances.setdefault(match[1], []).append(value)
        elif match := re.fullmatch(rf'(\w+)_({"|".join(ERRORS)})_err', name):
            classes.setdefault(match[1], {})[ERRORS[match[2]]] = value
        elif name.startswith('AP_'):
            classes.setdefault(name.removeprefix('AP_'), {})['AP'] = value
        else:
            overall[name] = value
    for name, values in distances.items():
        classes.setdefault(name, {})['AP'] = sum(values) / len(values)
    return overall, classes


def score_table(metrics: Mapping[str, float]) -> str:
    """Table of scores by class with their means below, and the scores that have no class.

    Args:
        metrics: of mmengine's evaluator, with the name of a metric before each ``/``; figures that
            hooks add without such a name are left out.
    """
    overall, classes = sort_scores({key: metrics[key] for key in metrics if '/' in key})
    overall = {name: value for name, value in overall.items() if name[: -len('_AP')] not in classes}
    head = [
        name for name in ('AP', *ERRORS.values()) if any(name in row for row in classes.values())
    ]
    rows = [['class', *head]]
    for name, row in classes.items():
        rows.append([name, *(_number(row.get(column)) for column in head)])
    if classes:
        rows.append(['mean', *(_number(overall.pop(f'm{column}', None)) for column in head)])
    others = [[name, _number(value)] for name, value in overall.items()]
    if len(others) > _MOST_OTHERS:
        others[_MOST_OTHERS:] = [[f'and {len(others) - _MOST_OTHERS} more in the log', '']]
    return '\n'.join(filter(None, (align(rows if classes else []), align(others))))


def score_line(metrics: Mapping[str, float]) -> str:
    """mAP and NDS of an evaluation, or its first overall scores."""
    overall, _ = sort_scores(_of_metrics(metrics))
    main = {name: overall[name] for name in ('mAP', 'NDS') if name in overall}
    chosen = main or dict([*overall.items()][:4])
    return '  '.join(f'{name} {_number(value)}' for name, value in chosen.items())


def _of_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Scores without the figures of hooks; all, if no metric has a name."""
    return {key: metrics[key] for key in metrics if '/' in key} or dict(metrics)


def _number(value: float | None) -> str:
    return '–' if value is None or value != value else f'{value:.3f}'
