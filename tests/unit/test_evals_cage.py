"""The cage: what runs in it reads and computes, and can do nothing else to this machine."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gtft.evals.checks import cage

TRIES = """
import json, os, resource, socket, subprocess, sys, threading
said = {}
def attempt(name, do):
    try:
        do()
        said[name] = "done"
    except BaseException as e:
        said[name] = type(e).__name__
folder = sys.argv[1]
def start():
    t = threading.Thread(target=lambda: said.setdefault("ran", True)); t.start(); t.join()
attempt("socket", socket.socket)
attempt("pair", socket.socketpair)
attempt("fork", os.fork)
attempt("spawn", lambda: subprocess.run(["/bin/true"]))
attempt("write", lambda: open(folder + "/new", "w"))
attempt("append", lambda: open(folder + "/old", "a"))
attempt("truncate", lambda: os.truncate(folder + "/old", 0))
attempt("remove", lambda: os.remove(folder + "/old"))
attempt("rename", lambda: os.rename(folder + "/old", folder + "/other"))
attempt("mkdir", lambda: os.mkdir(folder + "/dir"))
attempt("chmod", lambda: os.chmod(folder + "/old", 0o777))
attempt("link", lambda: os.symlink("old", folder + "/link"))
attempt("kill", lambda: os.kill(os.getppid(), 0))
attempt("memory", lambda: bytearray(3 << 30))
attempt("lift", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1, 1)) if os.getuid() else 1 / 0)
attempt("read", lambda: open(folder + "/old").read())
attempt("thread", start)
print(json.dumps(said))
"""


def run(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(Path(cage.__file__)), sys.executable, "-c", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this cage")
def test_nothing_outside_is_touched(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    done = run(TRIES, str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said.pop("read"), said.pop("thread"), said.pop("ran")) == ("done", "done", True)
    assert "done" not in said.values()
    assert said["socket"] == said["spawn"] == said["write"] == "PermissionError"
    assert said["memory"] == "MemoryError"
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_text() == "old"


def test_every_jump_of_the_filter_stays_inside_it() -> None:
    for machine in ("x86_64", "aarch64"):
        program = cage.make_filter(machine)
        steps = [program[i : i + 8] for i in range(0, len(program), 8)]
        assert len(program) == 8 * len(steps)
        assert len(steps) < 4096
        for at, step in enumerate(steps):
            code, jump, miss = step[0] | step[1] << 8, step[2], step[3]
            if code & 7 == 5:
                assert at + 1 + max(jump, miss) < len(steps)
        assert steps[-1][0] == 6
    assert cage.make_filter("another machine") == b""
    assert platform.machine() not in ("x86_64", "aarch64") or cage.make_filter(platform.machine())
