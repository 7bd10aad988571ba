"""A real town for tests: real ``dolt``, ``bd`` and ``gt``, in a temporary folder, on a free loopback port.

What a test starts it ends, by process id. Without the tools a test that needs them is skipped and names
what is missing; with ``GTFT_NEED_TOWN_TOOLS=1`` (CI) it fails instead.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pymysql
import pytest

REPO = Path(__file__).resolve().parents[1]
# Where scripts/town-tools puts them; also found on PATH.
TOOLS = REPO / ".tools" / "bin"
# Options of a quickstart whose eval is over soon: what it measures is the tutorial's test to see.
SMALLER_EVAL = (
    "--set", "eval.max_items=8", "--set", "eval.candidates=['base','tuned']", "--set", "eval.max_new_tokens=48",
)  # fmt: skip
# What the test's own box must not lend to the town.
FOREIGN = ("GT_", "BD_", "BEADS_", "DOLT_", "GTFT_", "CLAUDE_", "GIT_")


def need_tools(*names: str) -> None:
    """Skip (or, in CI, fail) when one of the programs is not there."""
    path = make_path()
    missing = [n for n in names if shutil.which(n, path=path) is None]
    if not missing:
        return
    text = f"missing: {', '.join(missing)} (scripts/town-tools installs them)"
    if os.environ.get("GTFT_NEED_TOWN_TOOLS"):
        pytest.fail(text)
    pytest.skip(text)


def make_path() -> str:
    return f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}"


def make_environ(folder: Path) -> dict[str, str]:
    """An environment of its own below ``folder``: home, git and dolt identity, no inherited town."""
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN)}
    environ |= {
        "HOME": str(home),
        "DOLT_ROOT_PATH": str(home),
        "PATH": make_path(),
        "GT_TEST_NO_NUDGE": "1",
        # Sessions that gt starts are in a tmux server of this town only.
        "TMUX_TMPDIR": str(folder),
        # Its trainings queue among themselves.
        "GTFT_RUNTIME_DIR": str(folder / "queue"),
        "BD_BACKUP_ENABLED": "false",
        "BD_NON_INTERACTIVE": "1",
    }
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Test Town\n\temail = town@example.com\n"
        "[beads]\n\trole = maintainer\n[init]\n\tdefaultBranch = main\n"
    )
    dolt = home / ".dolt"
    dolt.mkdir(exist_ok=True)
    (dolt / "config_global.json").write_text(
        '{"user.name":"Test Town","user.email":"town@example.com","metrics.disabled":"true",'
        '"versioncheck.disabled":"true"}'
    )
    return environ


def run(
    *argv: str, environ: dict[str, str], cwd: Path, check: bool = True, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is in the error when it fails."""
    done = subprocess.run(
        argv,
        env=environ,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"{argv} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


def find_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


def wait_for(what: Callable[[], bool], seconds: float = 30.0, step: float = 0.1) -> None:
    """Poll until ``what()``; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"{what} did not come true in {seconds:.0f} s"
        time.sleep(step)


@dataclass
class DoltServer:
    """A ``dolt sql-server`` that this test owns."""

    folder: Path
    port: int
    environ: dict[str, str]
    config: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with (self.folder / "dolt.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["dolt", "sql-server", "--config", str(self.config)],
                env=self.environ,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self.process

        def is_up() -> bool:
            assert process.poll() is None, (self.folder / "dolt.log").read_text()
            return self.answers()

        wait_for(is_up)
        # As gt sets it: idle connections are cut.
        self.query("SET GLOBAL wait_timeout = 30")

    def answers(self) -> bool:
        try:
            self.query("SELECT 1")
        except pymysql.err.MySQLError:
            return False
        return True

    def query(self, sql: str, database: str | None = None) -> list[tuple[object, ...]]:
        """One statement on a connection of its own, committed."""
        c = pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, autocommit=True
        )
        try:
            with c.cursor() as cursor:
                cursor.execute(sql)
                return list(cursor.fetchall())
        finally:
            c.close()

    def stop(self, *, kill: bool = False) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.process = None


def make_server(folder: Path) -> DoltServer:
    """A server on a free port with its data below ``folder``, started."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    environ = make_environ(folder)
    port = find_port()
    config = folder / "dolt.yaml"
    config.write_text(
        "log_level: warning\n"
        f"listener: {{host: 127.0.0.1, port: {port}, max_connections: 128,"
        " read_timeout_millis: 300000, write_timeout_millis: 300000}\n"
        f'data_dir: "{folder / "data"}"\n'
        "behavior: {dolt_transaction_commit: false}\n"
    )
    server = DoltServer(folder, port, environ, config)
    server.start()
    return server


def make_beads(folder: Path, server: DoltServer | None, prefix: str = "tt") -> Path:
    """A bead database of its own, in ``server`` or (None) embedded; returns its ``.beads``."""
    folder.mkdir(parents=True)
    environ = make_environ(folder) if server is None else dict(server.environ)
    environ |= {"BEADS_TEST_MODE": "1", "BEADS_DOLT_AUTO_START": "0"}
    run("git", "init", "-q", environ=environ, cwd=folder)
    common = [
        "--non-interactive",
        "--role",
        "maintainer",
        "--skip-hooks",
        "--skip-agents",
        "--stealth",
        "-q",
    ]
    where = (
        ["--server", "--external", "--server-host", "127.0.0.1", "--server-port", str(server.port)]
        if server
        else []
    )
    run("bd", "init", "-p", prefix, *where, *common, environ=environ, cwd=folder)
    return folder / ".beads"


@dataclass
class TestTown:
    """A town made by ``gt install`` with its rigs; its Dolt server was started by gt."""

    __test__ = False
    root: Path
    environ: dict[str, str]
    port: int

    def gt(self, *argv: str, cwd: Path | None = None, check: bool = True, **env: str) -> str:
        done = run("gt", *argv, environ=self.environ | env, cwd=cwd or self.root, check=check)
        return done.stdout + ("" if check else done.stderr)

    def bd(self, *argv: str, cwd: Path | None = None, check: bool = True, **env: str) -> str:
        done = run("bd", *argv, environ=self.environ | env, cwd=cwd or self.root, check=check)
        return done.stdout + ("" if check else done.stderr)

    def query(self, sql: str, database: str) -> list[tuple[object, ...]]:
        return DoltServer(self.root, self.port, self.environ, self.root).query(sql, database)

    def find_dolt(self) -> int | None:
        """Who listens for this town. gt was seen to remove its pid file on a busy box, with the server well."""
        listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN)
        return next((c.pid for c in listening if c.laddr.port == self.port), None)

    def stop_dolt(self, *, kill: bool = False) -> None:
        """End the server that gt started for this town."""
        pid = self.find_dolt()
        assert pid is not None, "no server listens for this town"
        os.kill(pid, signal.SIGKILL if kill else signal.SIGTERM)
        wait_for(lambda: not is_alive(pid))

    def start_dolt(self) -> None:
        self.gt("dolt", "start")

    def end(self) -> None:
        for socket_path in Path(self.environ["TMUX_TMPDIR"]).glob("tmux-*/*"):
            argv = ("tmux", "-S", str(socket_path), "kill-server")
            run(*argv, environ=self.environ, cwd=self.root, check=False)
        if self.find_dolt() is not None:
            self.stop_dolt()


def is_alive(pid: int) -> bool:
    # Ours to reap when we are its parent.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def make_real_town(folder: Path, rigs: dict[str, str]) -> TestTown:
    """``gt install`` and ``gt rig add`` (name → prefix) below ``folder``; each rig from a small git repo.

    On a box under load bd 1.0.5 can give up in the middle of a new rig's schema (it reads for 10 s at
    most) and gt goes on without a word: then the town is made once more.
    """
    need_tools("dolt", "bd", "gt")
    environ = make_environ(folder)
    for is_last in (False, True):
        port = find_port()
        environ["GT_DOLT_PORT"] = str(port)
        town = TestTown(folder / "town", environ, port)
        try:
            build_town(town, folder, rigs)
        except (AssertionError, subprocess.TimeoutExpired):
            town.end()
            if is_last:
                raise
            shutil.rmtree(town.root, ignore_errors=True)
            shutil.rmtree(folder / "origins", ignore_errors=True)
        else:
            return town
    raise AssertionError("never reached")


def build_town(town: TestTown, folder: Path, rigs: dict[str, str]) -> None:
    # ``--git``: bd and gt expect the town to be a repository.
    run(
        "gt", "install", str(town.root), "--dolt-port", str(town.port), "--name", "tt",
        "--owner", "town@example.com", "--git", environ=town.environ, cwd=folder,
    )  # fmt: skip
    for name, prefix in rigs.items():
        origin = make_origin(folder / "origins" / name, town.environ)
        town.gt("rig", "add", name, origin.as_uri(), "--prefix", prefix)


def make_origin(folder: Path, environ: dict[str, str]) -> Path:
    """A bare git repository with one commit on main."""
    work = folder / "work"
    work.mkdir(parents=True)
    for argv in (
        ("git", "init", "-q", "-b", "main"),
        ("git", "commit", "-q", "--allow-empty", "-m", "start"),
        ("git", "clone", "-q", "--bare", str(work), str(folder / "origin.git")),
    ):
        run(*argv, environ=environ, cwd=work)
    return folder / "origin.git"
