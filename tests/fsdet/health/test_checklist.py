from made_up_runs import EXPLOSION, evaluation, report, steps


def test_a_healthy_run_passes_every_line():
    found = report()
    assert [check.name for check in found.checks if check.status != "pass"] == []
    assert found.dead == ()
    assert found.verdict == "healthy after 200 steps; no warnings"
    assert not found.failed


def test_a_run_without_a_step_is_not_called_healthy():
    found = report([], [], {})
    assert "nothing to report" in found.verdict
    assert not found.failed


def test_a_run_of_a_few_steps_is_neither_healthy_nor_spared_its_faults():
    bad = [evaluation(1, 0.0)]
    assert report(steps(1), bad).verdict.startswith(
        "too short to judge: 1 step without a fault, but it takes 100; warnings: "
    )
    assert report(steps(99), bad).verdict.startswith("too short to judge: 99 steps without a fault")
    assert report(steps(100)).verdict.startswith("healthy after 100 steps")
    assert report(steps(1), explosion=EXPLOSION).verdict.startswith("not healthy after 1 step. ")
