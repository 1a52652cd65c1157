import re

from fsdet.train import train


def test_a_healthy_run_logs_what_people_search_for(small_config, base_run):
    result = train(small_config(resume=base_run.checkpoint, n_query=2, debug=True))
    lines = (result.run_dir / "training_debug.log").read_text().splitlines()
    start = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (DEBUG|NOTE|WARNING|ERROR) - "
    assert all(re.match(start, line) for line in lines)
    for name in ("Gradient norm", "Loss breakdown"):
        assert len([line for line in lines if name in line]) == result.steps
    signals = re.compile(r"Gradient norm .*, g²/v [\d.]+, spikes 0\.0 %$")
    assert len([line for line in lines if signals.search(line)]) == result.steps
    assert [line for line in lines if re.search("nan|inf", line, re.IGNORECASE)] == []
    assert (result.run_dir / "config.yaml").exists()
