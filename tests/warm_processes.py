"""Scripts in processes of their own that need not import torch first: they are forked from one that has.

`python tools/run_net.py` takes three seconds of a core before it does anything, for torch and for what torch
imports when the first optimizer is made, and the tests start it a hundred times. A process from here has its
own environment, files, signals, exit code and end of the interpreter, and imports vidformers itself. That a
script starts from nothing, or under torchrun, is tested with `subprocess`.
"""

import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.distributed import TCPStore

ROOT = Path(__file__).parents[1]
RUN_NET = ROOT / "tools" / "run_net.py"
# Libraries alone. None of them starts a thread, which a fork would not have.
IMPORTED = (
    "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.checkpoint", "av", "jinja2",
    "matplotlib.pyplot", "statsmodels.stats.multitest", "statsmodels.stats.proportion",
)  # fmt: skip


def run_script(
    script: Path,
    *arguments: str,
    processes: int = 1,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess:
    """`python SCRIPT ARGUMENTS` in the checkout; what was printed, and the exit code as `subprocess` has it.

    processes: above 1, as many at the same time with the environment that torchrun gives them, without its
    restarts; what they print lies together, and the exit code is 1 if one of them has failed, as torchrun's.
    environment: what differs from that of the tests. Raises subprocess.TimeoutExpired after `timeout` s.
    """
    common = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    environments = [common]
    if processes > 1:
        # As torchrun does: it has the store, so that nobody can take the port before the processes do.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        common |= {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
        common |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        environments = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "stdout"), Path(folder, "stderr")
        request = [str(script), arguments, environments, str(cwd), str(out), str(err), timeout]
        server = _server()
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        printed = [path.read_text(errors="replace") for path in (out, err)]
    if None in codes:
        raise subprocess.TimeoutExpired([str(script), *arguments], timeout, *printed)
    code = codes[0] if processes == 1 else int(any(codes))
    return subprocess.CompletedProcess([str(script), *arguments], code, *printed)


@functools.cache
def _server() -> subprocess.Popen:
    """Ends with this process, whose end of the pipe is then closed."""
    return subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def serve() -> tuple[str, list[str], dict[str, str], str, str, str]:
    """Answer requests until there are no more. Returns in each forked process, with what it is to be."""
    for name in IMPORTED:
        importlib.import_module(name)
    gc.freeze()
    for line in sys.stdin:
        script, arguments, environments, cwd, out, err, timeout = json.loads(line)
        running = {}
        for rank, environment in enumerate(environments):
            pid = os.fork()
            if pid == 0:
                return script, arguments, environment, cwd, out, err
            running[pid] = rank
        print(json.dumps(_exit_codes(running, timeout)), flush=True)
    sys.exit()


def _exit_codes(running: dict[int, int], timeout: float) -> Sequence[int | None]:
    codes: list[int | None] = [None] * len(running)
    deadline = time.monotonic() + timeout
    while running:
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[running.pop(pid)] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            break
        time.sleep(0.01)
    return codes


def become(arguments: list[str], environment: dict[str, str], cwd: str, out: str, err: str) -> None:
    """Give this process the arguments, the environment, the folder and the files of a new one."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for number, (path, flags) in enumerate(((os.devnull, os.O_RDONLY), (out, append), (err, append))):
        file = os.open(path, flags, 0o600)
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0)  # noqa: SIM115
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[attr-defined, union-attr]


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    script, *rest = serve()
    become(*rest)
    runpy.run_path(script, run_name="__main__")
