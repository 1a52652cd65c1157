"""A whole sweep with a password in every URL, which no file, no log and no output may hold."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from drill_sweep import SWEEP
from servers import PASSWORD, Postgres, mlflow_server, postgres, s3_server

from sweeps.errors import SweepError
from sweeps.run import main
from sweeps.secrets import full_url, holds_secret, without_password
from sweeps.states import Outcome, State

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
TOKEN = "token-of-mine-0815"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://tester:p@ss/w0rd@host:5432/x",
        "postgresql+psycopg://tester@host/x?password=hunter2&sslmode=require",
        "https://token@host",
        "https://account.blob/x?sv=1&sig=abc%3D",
        "https://host/x?X-Amz-Signature=abc",
        "mysql://root:@host/x",
    ],
)
def test_url_with_a_secret_is_known_and_shown_without_it(url):
    assert holds_secret(url)
    shown = without_password(url)
    assert not holds_secret(shown)
    assert not any(part in shown for part in ("p@ss", "w0rd", "hunter2", "token", "abc", "root"))


@pytest.mark.parametrize(
    "url",
    ["postgresql://host:5432/x", "sqlite:////home/me@work/x.db", "s3://bucket/a@b", "/mnt/a:b@c"],
)
def test_url_without_a_secret_stays(url):
    assert not holds_secret(url)


def test_full_url_is_asked_of_the_variable(monkeypatch):
    whole = "postgresql://tester:secret@host/x"
    kept = without_password(whole)
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    with pytest.raises(SweepError, match="set OPTUNA_STORAGE to the full URL"):
        full_url(kept, "OPTUNA_STORAGE", "its study")
    monkeypatch.setenv("OPTUNA_STORAGE", "postgresql://tester:secret@elsewhere/x")
    with pytest.raises(SweepError, match="set OPTUNA_STORAGE to the full URL"):
        full_url(kept, "OPTUNA_STORAGE", "its study")
    monkeypatch.setenv("OPTUNA_STORAGE", whole)
    assert full_url(kept, "OPTUNA_STORAGE", "its study") == whole
    assert full_url("sqlite:///x", "OPTUNA_STORAGE", "its study") == "sqlite:///x"


@pytest.mark.parametrize(
    "words",
    [
        ("--set", "storage.study=postgresql://tester:secret@host/x"),
        ("--set", "tracking.uri=https://tester:secret@host"),
        ("--set", "storage.path=s3://key:secret@bucket"),
    ],
)
def test_secret_on_the_command_line_is_refused_and_not_repeated(words, in_own_folder, capsys):
    (in_own_folder / "drill.yaml").write_text(SWEEP)
    assert main(["drill.yaml", *words]) == 2
    told = capsys.readouterr().err
    assert "every user of this machine can read a password there" in told
    assert "secret" not in told


@pytest.mark.parametrize(
    "line", ["storage: {study: 'nonsense:secret@x'}", "tracking: 'https://x:secret@h'"]
)
def test_mistake_in_a_url_is_told_without_it(line, in_own_folder, capsys):
    (in_own_folder / "drill.yaml").write_text(f"{SWEEP}{line}\n")
    assert main(["drill.yaml"]) == 2
    assert "secret" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


def session(folder: Path, *words: str, module: str = "drill_sweep", **more: str) -> str:
    """A command in a process of its own; all that it printed."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent)]
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "DRILL_EPOCH_SECONDS": "0.1",
            **more,
        },
        capture_output=True,
        text=True,
    )
    return f"{done.returncode}\n{done.stdout}{done.stderr}"


def files_with(secret: str, *folders: Path) -> list[Path]:
    """All files below that hold `secret` as text."""
    return [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and secret.encode() in path.read_bytes()
    ]


@pytest.mark.slow
def test_no_file_log_or_output_of_a_sweep_holds_a_secret(server, tmp_path):
    """Study and tracking store in PostgreSQL, files in S3; Ray's session logs are read too."""
    ray = Path(tempfile.mkdtemp(prefix="ray-"))
    folder = tmp_path / "driver"
    folder.mkdir()
    try:
        with s3_server() as bucket:
            text = SWEEP.replace("trials: 12", "trials: 3").replace("lr: 0.5", "lr: 4.0")
            text += f"storage: {{path: {bucket}/sweeps, study: '{server.url}'}}\n"
            text += f"tracking: {{uri: '{server.runs_url}', experiment: secrets}}\n"
            (folder / "drill.yaml").write_text(text)
            variables = {"RAY_TMPDIR": str(ray), "MLFLOW_TRACKING_TOKEN": TOKEN}
            printed = session(folder, "drill.yaml", **variables)
            (folder / "drill.yaml").unlink()  # the one place where the password stands
            without = session(
                folder, "drill", "--storage", f"{bucket}/sweeps", module="sweeps.best"
            )
            known = {"OPTUNA_STORAGE": server.url, "MLFLOW_TRACKING_URI": server.runs_url}
            best = session(
                folder, "drill", "--storage", f"{bucket}/sweeps", module="sweeps.best", **known
            )
            shutil.copytree(folder, tmp_path / "kept")
            store = fetched(bucket, tmp_path / "store")
        assert printed.startswith("0\n"), printed
        assert without.startswith("2\n")
        assert "set OPTUNA_STORAGE to the full URL" in without
        assert best.startswith("0\n"), best
        dump = dumped(server.url) + dumped(server.runs_url)
        assert "sweep.name" in dump
        assert "best_epoch" in dump
        for said in (printed, without, best, dump):
            assert PASSWORD not in said
            assert TOKEN not in said
        assert len(list(ray.rglob("*.log"))) > 3
        assert files_with(PASSWORD, tmp_path, ray) == []
        assert files_with(TOKEN, tmp_path, ray) == []
        assert (store / "sweep.yaml").is_file()
    finally:
        shutil.rmtree(ray, ignore_errors=True)


def dumped(url: str) -> str:
    """All rows of a database."""
    command = ["pg_dump", "--inserts", url]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def fetched(bucket: str, to: Path) -> Path:
    """All that a sweep has left in the storage."""
    from sweeps.storage.remote import RemoteFolder

    mirror = RemoteFolder(f"{bucket}/sweeps/drill")
    for name in mirror.list_files():
        mirror.download(name, to / name)
    return to


@pytest.mark.slow
def test_password_in_the_address_of_a_tracking_server_is_shown_to_nobody(server, tmp_path):
    """A real `mlflow server` over PostgreSQL; the user's password is part of its URL."""
    with mlflow_server(tmp_path, server.runs_url) as address:
        folder = tmp_path / "driver"
        folder.mkdir()
        (folder / "drill.yaml").write_text(SWEEP.replace("trials: 12", "trials: 2"))
        uri = address.replace("http://", f"http://tester:{PASSWORD}@")
        printed = session(folder, "drill.yaml", MLFLOW_TRACKING_URI=uri, OPTUNA_STORAGE=server.url)
        assert printed.startswith("0\n"), printed
        assert "could not" not in printed
    assert PASSWORD not in printed
    assert files_with(PASSWORD, folder) == []
    assert not list(folder.rglob("mlflow.db"))
    assert not list(folder.rglob("study.journal"))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:secret@host/x",
        "cannot reach https://me:se/secret@host:80/x, nor that",
        "https://secret@host",
        "postgresql://host/x?user=me&password=secret&ssl=on",
        "https://host/?token=secret",
        "401 for hunter2-secret",
    ],
)
def test_password_is_hidden(text, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2-secret")
    shown = without_password(text)
    assert "secret" not in shown
    assert "…" in shown


def test_text_without_a_password_stays():
    text = "sqlite:////a/b.db, mail me@host, http://host:80/x?a=b"
    assert without_password(text) == text


def test_a_long_text_takes_time_in_proportion():
    begin = time.process_time()
    for text in (
        "://" * 300_000,
        "://a:" * 200_000 + "@",
        "://@" * 200_000,
        "a@" * 300_000,
        "password" * 100_000,
    ):
        without_password(text)
    assert time.process_time() - begin < 5


def test_a_reason_is_kept_without_its_secret(monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_KEY", "hunter2")
    said = Outcome(State.FAILED, "no answer of postgresql://me:pw@db/x with key hunter2").reason
    assert said == "no answer of postgresql://…@db/x with key …"
