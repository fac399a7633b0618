from projects.cmt_aqr.evaluation.conditions_loop import with_failure

LOADER = dict(
    batch_size=2,
    persistent_workers=True,
    dataset=dict(pipeline=[dict(type='Load'), dict(type='Fit')]),
)


def test_a_failure_stands_first_and_the_clean_config_stays():
    damaged = with_failure(LOADER, dict(type='Fog', severity=2))
    assert [step['type'] for step in damaged['dataset']['pipeline']] == ['Fog', 'Load', 'Fit']
    assert len(LOADER['dataset']['pipeline']) == 2


def test_without_a_failure_only_the_workers_end_with_the_condition():
    assert with_failure(LOADER, None) == {**LOADER, 'persistent_workers': False}
