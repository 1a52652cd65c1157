"""What a slow or absent MLflow server costs a sweep: `python benchmarks/tracking_server.py`.

The same four trials are logged to a server as it is, to one that waits two seconds before it answers each request, and
to one that is killed for a minute. Printed for each: seconds of a step, measured by the trainer; seconds that the sweep
waited at its end; and the values of `steps.jsonl` that are missing in MLflow, before and after `sweeps.sync`.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[0] = str(ROOT)

from mlflow import MlflowClient  # noqa: E402

from sweeps.storage.lookup import find_folder  # noqa: E402
from sweeps.study.study import read_trials  # noqa: E402
from sweeps.trial.worker import STEP_SECONDS  # noqa: E402
from sweeps.ui import command, variables  # noqa: E402

SLEEP, AWAY = 2.0, 60.0
"""Seconds before an answer, and without a server."""
SETTINGS = ("trials=4", "epochs=4", "n_episodes=30", "confirm=null", "scheduler.name=none")
SEEN = ("grad/norm", "train/loss/dfl")
"""Metrics whose values are counted."""


def slow_proxy(target: str) -> ThreadingHTTPServer:
    """Passes requests on to `target`, each after `SLEEP` seconds."""

    class Slow(BaseHTTPRequestHandler):
        def pass_on(self) -> None:
            time.sleep(SLEEP)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            request = urllib.request.Request(  # noqa: S310
                target + self.path, data=body or None, headers=kept, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                    code, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                code, content = error.code, error.read()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_HEAD = do_DELETE = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def start_server(port: int, store: str) -> subprocess.Popen[bytes]:
    """A real server, when it answers."""
    quiet = subprocess.DEVNULL
    server = subprocess.Popen(
        command(port),
        env=variables(store),
        cwd=Path(store.removeprefix("sqlite:///")).parent,
        start_new_session=True,
        stdout=quiet,
        stderr=quiet,
    )
    while server.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
        except OSError:
            time.sleep(0.5)
        else:
            return server
    raise SystemExit(f"the server ended with code {server.returncode}")


def measure(
    kind: str, port: int, before_each: Callable[[str, list[subprocess.Popen[bytes]]], str]
) -> None:
    """Run the sweep in a folder of its own, and print its figures."""
    folder = Path(tempfile.mkdtemp(prefix=f"{kind}-"))
    store = f"sqlite:///{folder / 'server.db'}"
    servers = [start_server(port, store)]
    address = before_each(store, servers)
    arguments = [word for text in SETTINGS for word in ("--set", text)]
    file = ROOT / "search_spaces" / "stage2_clip_dfl.yaml"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": address, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", str(file), "--name", "timed", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 2:
        raise SystemExit(done.stderr)
    os.chdir(folder)
    trials = read_trials(find_folder("timed").study_file)
    steps = statistics.median(t.costs[STEP_SECONDS] for t in trials)
    before = missing(f"http://127.0.0.1:{port}", folder)
    subprocess.run(
        [sys.executable, "-m", "sweeps.sync", "timed"], cwd=folder, env=environment, check=False
    )
    after = missing(f"http://127.0.0.1:{port}", folder)
    print(
        f"{kind:8} {1000 * steps:.1f} ms a step, exit code {done.returncode}, {before[0]} of {before[1]} values "
    )
    print(f"         missing at the end, {after[0]} after sweeps.sync", flush=True)
    for server in (one for one in servers if one.poll() is None):
        os.killpg(server.pid, signal.SIGKILL)


def missing(address: str, folder: Path) -> tuple[int, int]:
    """How many values of the trials are not in MLflow, and of how many."""
    client = MlflowClient(address)
    experiment = client.get_experiment_by_name("sweeps").experiment_id
    runs = {
        run.data.tags.get("sweep.trial"): run.info.run_id
        for run in client.search_runs([experiment])
    }
    lost = total = 0
    for file in sorted((folder / "mlruns/sweeps/timed/trials").glob("*/steps.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        run_id = runs.get(str(int(file.parent.name)))
        for name in SEEN:
            wanted = {(int(row["step"]), row[name]) for row in rows if name in row}
            history = client.get_metric_history(run_id, name) if run_id else []
            lost += len(wanted - {(metric.step, metric.value) for metric in history})
            total += len(wanted)
    return lost, total


def main() -> None:
    def as_it_is(_: str, servers: list[subprocess.Popen[bytes]]) -> str:  # noqa: ARG001
        return "http://127.0.0.1:5301"

    def slow(_: str, servers: list[subprocess.Popen[bytes]]) -> str:  # noqa: ARG001
        proxy = slow_proxy("http://127.0.0.1:5302")
        return f"http://127.0.0.1:{proxy.server_address[1]}"

    def killed(store: str, servers: list[subprocess.Popen[bytes]]) -> str:
        def interrupt() -> None:
            time.sleep(20)
            os.killpg(servers[0].pid, signal.SIGKILL)
            time.sleep(AWAY)
            servers.append(start_server(5303, store))

        threading.Thread(target=interrupt, daemon=True).start()
        return "http://127.0.0.1:5303"

    measure("fast", 5301, as_it_is)
    measure("slow", 5302, slow)
    measure("killed", 5303, killed)


if __name__ == "__main__":
    main()
