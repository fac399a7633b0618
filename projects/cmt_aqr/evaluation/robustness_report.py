"""A comparison under sensor failures as Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence

from ..datasets.failures.suite import UNSEEN, Row
from ..health.alarm import Separation, mean_auroc
from ..markdown import table
from .bootstrap import Interval
from .published import CMT_ON_NUSCENES
from .records import Record
from .robustness import CLEAN, MEAN, Comparison, Difference, ModelResult, ScoredAlarm

# Columns of the CSV: scores, and attention under the names of RoutingLogHook.
_SCORES = ('mAP', 'NDS', 'mATE', 'mASE', 'mAOE', 'mAVE', 'mAAE')
_ATTENTION = ('lidar_share', 'gap', 'leverage', 'w_lidar', 'w_camera')
_ALARM = ('auroc_lidar', 'auroc_cameras', 'auroc_one_camera', 'alarmed', 'NDS_without_alarm')
_PLAN = ('L2_to_3s', 'L2_at_3s', 'collision_to_3s')
_NOTHING = '–'
# Largest difference from a published RA that counts as agreement.
AGREEMENT = 0.1
_ALARMS = (
    'AUROC / false alarms on sound frames at 95 % detection: of the LiDAR and of the worst camera '
    'in damaged frames against sound frames, and of damaged cameras against the others of the same '
    'frames. An alarm is a health below that of 99 % of the sound frames; NDS without is that of '
    'the frames without one.'
)

_PLANS = (
    'Distance to the driven path in metres up to and at 3 s / share of plans that collide up to '
    '3 s, in percent; see docs/planning.md.'
)
_PLANS_COMPARED = (
    'Distance / collisions up to 3 s minus those of constant velocity, with the 95 % interval of a '
    'paired bootstrap over the scenes.'
)


def to_markdown(comparison: Comparison) -> str:
    """Tables of scores, differences from the first model and attention, and a list of the runs."""
    parts = [
        '# Robustness under sensor failures',
        f'{comparison.frames} frames, seed {comparison.seed}. Scores are mAP / NDS in points by '
        'the official nuScenes evaluation; RA is the NDS under a failure, its severities averaged, '
        'over the clean NDS, and mRA its mean over the failures.' + _unseen(comparison.rows),
        _score_table(comparison),
    ]
    if len(comparison.models) > 1:
        draws = len(comparison.models[0].draws[CLEAN].nds)
        parts += [
            f'## Against {comparison.models[0].name}',
            'Differences in points (of RA: in hundredths), with the 95 % interval of a paired '
            f'bootstrap of {draws} draws over the frames.',
            _difference_table(comparison),
        ]
    parts += _beside_the_published(comparison.models)
    for model in comparison.models:
        if model.alarms:
            parts += [f'## Health as an alarm: {model.name}', _ALARMS, _alarm_table(model)]
            parts += [_mean_alarms(comparison, model)]
    if any(model.records[CLEAN].plan for model in comparison.models):
        parts += ['## Plans', _PLANS, _plan_table(comparison)]
        parts += [_PLANS_COMPARED, _compared_plan_table(comparison)]
    parts += [
        '## Where queries look',
        "LiDAR mass of the attention / gap between the sensors' log-shares / leverage; with a "
        'router also its mean weight of LiDAR / of the cameras. Frames that an expert decodes do '
        'not count.',
        _attention_table(comparison),
        '## What was run',
        _models_list(comparison.models),
    ]
    departures = [f'- {row.name}: {row.departure}' for row in comparison.rows if row.departure]
    if departures:
        parts += ['## Departures from what was published', '\n'.join(departures)]
    return '\n\n'.join(parts) + '\n'


def to_csv(comparison: Comparison) -> str:
    """A line for each model and condition, then for each model and failure, and for the mean."""
    file = io.StringIO()
    names = [
        'model',
        'failure',
        'severity',
        *_SCORES,
        'RA',
        *_ATTENTION,
        *_ALARM,
        *map('plan_{}'.format, _PLAN),
    ]
    writer = csv.DictWriter(file, names, restval='', lineterminator='\n')
    writer.writeheader()
    for model in comparison.models:
        for failure, severity, name in _conditions(comparison):
            record = model.records[name]
            line = dict(model=model.name, failure=failure, severity=severity)
            line |= {key: record.scores[key] for key in _SCORES if key in record.scores}
            line |= {key: record.attention.get(key, '') for key in _ATTENTION}
            line |= {f'plan_{key}': record.plan.get(key, '') for key in _PLAN}
            if name in model.alarms:
                line |= _alarm_columns(model.alarms[name])
            writer.writerow(line)
        for failure in _failures(comparison)[1:]:
            kept = model.kept[failure]
            line = dict(model=model.name, failure=failure, severity='mean')
            writer.writerow({**line, 'mAP': kept.mean_ap, 'NDS': kept.nds, 'RA': kept.ra})
    return file.getvalue()


def to_json(comparison: Comparison) -> str:
    """All results, with the intervals of scores and differences."""
    first = comparison.models[0]
    every = _failures(comparison)
    data = {
        'frames': comparison.frames,
        'seed': comparison.seed,
        'draws': len(first.draws[CLEAN].nds),
        'reference': first.name,
        'failures': {
            row.name: {'conditions': list(row.conditions), 'departure': row.departure}
            for row in comparison.rows
        },
        'models': {
            model.name: {
                'conditions': {name: vars(record) for name, record in model.records.items()},
                'failures': {name: _kept_data(model, name) for name in every},
                'alarms': {name: _alarm_columns(item) for name, item in model.alarms.items()},
                'difference': {
                    name: {
                        score: _difference_data(comparison.difference(model, name, score))
                        for score in ('mean_ap', 'nds', 'ra')
                    }
                    for name in every
                    if model is not first
                },
            }
            for model in comparison.models
        },
    }
    return json.dumps(data, indent=2) + '\n'


def _conditions(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Failure, severity and name of every condition, starting with the clean one."""
    return [
        (CLEAN, '', CLEAN),
        *(
            (row.name, str(severity), name)
            for row in comparison.rows
            for severity, name in zip(row.severities, row.conditions, strict=True)
        ),
    ]


def _failures(comparison: Comparison) -> list[str]:
    """Names of the rows: clean, every failure, and the mean."""
    return [CLEAN, *(row.name for row in comparison.rows), MEAN]


def _unseen(rows: Sequence[Row]) -> str:
    names = [row.name for row in rows if row.name in UNSEEN]
    return f' No config of this project trains with {", ".join(names)}.' if names else ''


def _score_table(comparison: Comparison) -> str:
    models = comparison.models
    lines = [['clean', '', *(_points(*model.kept[CLEAN][:2]) for model in models)]]
    for row in comparison.rows:
        for severity, name in zip(row.severities, row.conditions, strict=True):
            scores = [_points(*_main_scores(model.records[name])) for model in models]
            lines.append([row.name, str(severity), *scores])
        lines.append([row.name, '**RA**', *(_ra(model, row.name) for model in models)])
    mean = _row_name(comparison, MEAN)
    lines.append([mean, '', *(_points(*model.kept[MEAN][:2]) for model in models)])
    lines.append([mean, '**mRA**', *(_ra(model, MEAN) for model in models)])
    return table(['failure', 'severity', *(model.name for model in models)], lines)


def _row_name(comparison: Comparison, failure: str) -> str:
    return f'mean of {len(comparison.rows)} failures' if failure == MEAN else failure


def _difference_table(comparison: Comparison) -> str:
    others = comparison.models[1:]
    head = ['failure', *(f'{model.name}: {score}' for model in others for score in ('NDS', 'mAP'))]
    lines = [
        [
            _row_name(comparison, failure),
            *(
                _change(comparison.difference(model, failure, score))
                for model in others
                for score in ('nds', 'mean_ap')
            ),
        ]
        for failure in _failures(comparison)
    ]
    mra = [[_change(comparison.difference(model, MEAN, 'ra')), ''] for model in others]
    return table(head, [*lines, ['mRA', *(cell for cells in mra for cell in cells)]])


def _beside_the_published(models: Sequence[ModelResult]) -> list[str]:
    """A section on the published RA of CMT; nothing if no failure was scored in full."""
    lines, agreed = [], [0] * len(models)
    for published in CMT_ON_NUSCENES:
        found = [published.of(model.records) for model in models]
        if None in found:
            continue
        agreed = [
            n + (abs(ra - published.ra) <= AGREEMENT) for n, ra in zip(agreed, found, strict=True)
        ]
        severities = ', '.join(map(str, published.severities))
        lines.append(
            [published.failure, severities, f'{published.ra:.2f}', *(f'{ra:.2f}' for ra in found)]
        )
    if not lines:
        return []
    lines.append([f'within {AGREEMENT}', '', '', *(f'{n} of {len(lines)}' for n in agreed)])
    sources = '; '.join(dict.fromkeys(published.source for published in CMT_ON_NUSCENES))
    return [
        '## Beside CMT on nuScenes',
        f'RA of the released CMT on nuScenes, each under its own protocol: {sources}.',
        table(['failure', 'severities', 'published', *(m.name for m in models)], lines),
    ]


def _alarm_table(model: ModelResult) -> str:
    head = ['condition', 'LiDAR', 'cameras', 'the camera that fails', 'frames with an alarm']
    lines = []
    for name, (alarm, nds) in model.alarms.items():
        cells = [_separation(part) for part in (alarm.lidar, alarm.cameras, alarm.one_camera)]
        lines.append(
            [name, *cells, f'{alarm.alarmed:.0%}', _NOTHING if nds is None else f'{100 * nds:.1f}']
        )
    return table([*head, 'NDS without'], lines)


def _alarm_columns(scored: ScoredAlarm) -> dict[str, float | str]:
    *parts, alarmed = scored.alarm
    values = [*('' if part is None else part.auroc for part in parts), alarmed, scored.nds]
    return dict(zip(_ALARM, ['' if value is None else value for value in values], strict=True))


def _separation(found: Separation | None) -> str:
    return _NOTHING if found is None else f'{found.auroc:.3f} / {found.false_alarms:.0%}'


def _mean_alarms(comparison: Comparison, model: ModelResult) -> str:
    """Mean AUROC over the failures that are trained with, and over those that are not."""
    means = []
    for kind, unseen in (('seen', False), ('unseen', True)):
        rows = [row for row in comparison.rows if (row.name in UNSEEN) == unseen]
        alarms = [model.alarms[name].alarm for row in rows for name in row.conditions]
        if alarms:
            means.append(f'{kind} in training {mean_auroc(alarms):.3f}')
    return f'Mean AUROC over failures, severities and sensors: {", ".join(means)}.'


def _plan_table(comparison: Comparison) -> str:
    """Table of the plan scores under each condition; the last row is constant velocity."""
    models = comparison.models
    lines = [
        [failure, severity, *(_plan(model.records[name].plan) for model in models)]
        for failure, severity, name in _conditions(comparison)
    ]
    steady = [_plan(model.records[CLEAN].plan, 'constant_velocity_') for model in models]
    return table(
        ['failure', 'severity', *(model.name for model in models)],
        [*lines, ['constant velocity', '', *steady]],
    )


def _plan(scores: Mapping[str, float], prefix: str = '') -> str:
    if not scores:
        return _NOTHING
    to, at, collisions = (scores[prefix + key] for key in _PLAN)
    return f'{to:.2f}, {at:.2f} / {collisions:.1f}'


def _compared_plan_table(comparison: Comparison) -> str:
    """Table that compares the plans with constant velocity under each condition."""
    lines = [
        [failure, severity, *(_compared_plan(m.records[name].plan) for m in comparison.models)]
        for failure, severity, name in _conditions(comparison)
    ]
    return table(['failure', 'severity', *(model.name for model in comparison.models)], lines)


def _compared_plan(scores: Mapping[str, float]) -> str:
    names = [f'{quantity}_less_constant_velocity' for quantity in ('L2', 'collision')]
    if names[0] not in scores:
        return _NOTHING
    return ' / '.join(
        f'{scores[n]:+.2f} [{scores[n + "_low"]:+.2f}, {scores[n + "_high"]:+.2f}]' for n in names
    )


def _attention_table(comparison: Comparison) -> str:
    lines = [
        [failure, severity, *(_attention(model.records[name]) for model in comparison.models)]
        for failure, severity, name in _conditions(comparison)
    ]
    return table(['failure', 'severity', *(model.name for model in comparison.models)], lines)


def _attention(record: Record) -> str:
    figures = record.attention
    if 'lidar_share' not in figures:
        return _NOTHING
    cells = [f'{figures["lidar_share"]:.3f}', f'{figures["gap"]:.1f}', f'{figures["leverage"]:.3f}']
    if 'w_lidar' in figures:
        cells += [f'{figures["w_lidar"]:+.3f}', f'{figures["w_camera"]:+.3f}']
    return ' / '.join(cells)


def _models_list(models: Sequence[ModelResult]) -> str:
    lines = []
    for model in models:
        made_of = model.records[CLEAN].made_of
        commits = sorted({_commit(record) for record in model.records.values()})
        lines.append(
            f'- {model.name}: `{made_of["config"]}` with `{made_of["checkpoint"]}` (SHA-256 '
            f'{made_of["checkpoint_sha256"][:12]}…), commit {", ".join(commits)}'
        )
    return '\n'.join(lines)


def _commit(record: Record) -> str:
    changed = ' with changes' if record.made_of['changed'] else ''
    return f'{record.made_of["commit"]}'[:10] + changed


def _main_scores(record: Record) -> tuple[float, float]:
    return record.scores['mAP'], record.scores['NDS']


def _points(mean_ap: float, nds: float) -> str:
    return f'{100 * mean_ap:.1f} / {100 * nds:.1f}'


def _ra(model: ModelResult, failure: str) -> str:
    return f'**{model.kept[failure].ra:.3f}**'


def _change(difference: Difference) -> str:
    # Rounding first and adding 0 avoids a minus sign before zero.
    value, low, high = (
        f'{round(100 * number, 1) + 0.0:+.1f}'
        for number in (difference.value, *difference.interval)
    )
    return f'{value} [{low}, {high}]'


def _kept_data(model: ModelResult, failure: str) -> dict:
    """Scores under a failure, with their intervals."""
    draws = model.draws[failure]._asdict()
    return {
        name: {'value': float(value), 'interval': Interval.of(draws[name])}
        for name, value in model.kept[failure]._asdict().items()
    }


def _difference_data(difference: Difference) -> dict:
    return {'value': difference.value, 'interval': difference.interval}
