"""A model in a Gas City: an upstream and a patch of the role's agent in ``city.toml``, and the bytes of before again.

Ours is a block between two comments, put where TOML lets it stand, so that no other byte is touched. What the block
makes of the file is read back and compared: it is what was there and ours, or nothing is written. Where ``gc`` is on
PATH it is asked whether it still loads the city, and the old bytes are put back when it does not.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import tomli

from gtft.errors import TownError, UsageError, translate_os_error
from gtft.tool import find_tool, run_tool
from gtft.town.parts import is_link
from gtft.town.settings import read_bytes

CITY = "city.toml"
MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
# ``upstream``: a named endpoint. ``env``: variables of the agent, for builds of gc (April 2026) that know none.
Form = Literal["upstream", "env"]
# provider → the variables that its program reads: address, key.
_READS = {
    "claude": ("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"),
    "codex": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
}


@dataclass(frozen=True)
class CityPlan:
    """``found`` and ``new`` are the whole file; ``name`` is that of our upstream and of our block; ``mark`` is what the
    agent has in the city as ``gc`` resolves it, "" when nothing is put."""

    path: Path
    name: str
    found: bytes
    new: bytes
    mode: int
    mark: str = ""

    @property
    def changes(self) -> bool:
        return self.found != self.new

    def diff(self) -> str:
        """A unified diff."""
        old, new = (
            data.decode("utf-8", "replace").splitlines(keepends=True)
            for data in (self.found, self.new)
        )
        lines = difflib.unified_diff(old, new, f"a/{CITY}", f"b/{CITY}")
        return "".join(
            n if n.endswith("\n") else f"{n}\n\\ No newline at end of file\n" for n in lines
        )


def name_upstream(role: str, rig: str) -> str:
    """Of a role's upstream. Raises UsageError for a name that is no plain one."""
    for name in (role, rig):
        if name and not _NAME.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a role or a rig")
    return f"gtft-{rig}-{role}" if rig else f"gtft-{role}"


def plan_city(
    root: Path,
    *,
    role: str,
    rig: str,
    base_url: str,
    key_env: str,
    model: str,
    provider: str,
    agent: str = "",
    form: Form = "upstream",
) -> CityPlan:
    """What ``city.toml`` becomes when a role runs on a model. Nothing is written.

    ``base_url`` is what the provider's program appends its paths to (claude: without ``/v1``; codex: with it).
    ``key_env``: the variable that holds the key, "" for none. ``model``: written as the agent's model option, "" to
    leave it alone: the endpoint of a role answers whatever model it is asked for. ``agent``: the identity of an agent
    of a pack (``gastown.witness``); without it the role's own name. Raises UsageError and TownError.
    """
    name = name_upstream(role, rig)
    _check_values(base_url, key_env, model, agent)
    path, found, mode = _read(root)
    rest = take_block(found, name)
    doc = _parse(rest, path)
    reads = _find_reads(provider, doc)
    settings: dict[str, Any] = {"provider": provider}
    upstream: dict[str, Any] = {}
    if form == "upstream":
        settings["upstream"] = name
        upstream = {"description": f"gtft: {role}", "base_url": base_url}
        if key_env:
            key = "auth_token" if reads[1] == "ANTHROPIC_AUTH_TOKEN" else "api_key"
            upstream[key] = f"${key_env}"
    else:
        settings["env"] = {reads[0]: base_url, **({reads[1]: f"${key_env}"} if key_env else {})}
    if model:
        settings["option_defaults"] = {"model": model}
    wanted, head, patch = _place(doc, path, role, rig, agent, settings)
    lines = []
    if upstream:
        if name in wanted.get("upstreams", {}):
            raise TownError(
                f"{path} already has an upstream {name}, and it is not gtft's",
                why="it would be written over",
                fix="rename it, then the same command again",
            )
        wanted.setdefault("upstreams", {})[name] = upstream
        lines += [f"[upstreams.{name}]", *_write_table(upstream), ""]
    # The patch first: ``[[rigs.…]]`` belongs to the ``[[rigs]]`` before it.
    lines = [head, *_write_table(patch), "", *lines]
    new = _put_block(rest, name, lines[:-1] if not lines[-1] else lines, wanted, path)
    return CityPlan(path, name, found, new, mode, name if form == "upstream" else base_url)


def list_refusals(plan: CityPlan, environ: Mapping[str, str]) -> Iterator[str]:
    """What ``gc`` says against the file as it stands; nothing when there is no ``gc``."""
    if find_tool("gc", environ) is None:
        return
    root = plan.path.parent
    said = run_tool("gc", "--city", str(root), "config", "show", environ=environ, cwd=root)
    lines = [line for line in said.stderr.splitlines() if line.strip()]
    if said.code != 0:
        yield from lines or ["gc config show failed"]
        return
    ours = (f"upstreams.{plan.name}", "patches.agent.upstream", "overrides.upstream")
    unknown = [line for line in lines if "unknown field" in line and any(o in line for o in ours)]
    if not unknown and plan.mark and not _has_agent(said.stdout, plan.mark):
        yield "no agent of the city, as gc resolves it, runs on the model"
    yield from unknown


def _has_agent(resolved: str, mark: str) -> bool:
    try:
        agents = _list_tables(tomli.loads(resolved), "agent")
    except ValueError:
        return False
    return any(mark in (a.get("upstream"), *(a.get("env") or {}).values()) for a in agents)


def take_block(found: bytes, name: str) -> bytes:
    """The file without the block of ``name``; every other byte stays. Without one it is as it was."""
    block = _find_block(found, name)
    if block is None:
        return found
    begin, stop = block
    start, rest = begin.start(), found[stop.end() :]
    if not begin["here"]:
        return found[:start] + rest
    # The line end before it is ours, too. What follows needs it: another block of ours takes it over.
    newline = b"\r\n" if found[:start].endswith(b"\r\n") else b"\n"
    before = found[: max(0, start - len(newline))]
    if not rest:
        return before
    taken = re.sub(rb"\A(# gtft deploy [\w-]+: begin)(\r?\n)", rb"\1 here\2", rest)
    return before + newline + taken


def keep_block(now: bytes, rest: bytes, found: bytes, name: str) -> bytes:
    """``now`` with the block of ``name`` as it is in ``found``, where both have one. ``rest``: ``now`` without it."""
    here, there = _find_block(now, name), _find_block(found, name)
    if here is None or there is None:
        return rest
    said = found[there[0].end() : there[1].start()]
    return now[: here[0].end()] + said + now[here[1].start() :]


def has_block(found: bytes, name: str) -> bool:
    """Whether the block of ``name`` is there, or one of its two marks."""
    mark = rb"^[ \t]*# gtft deploy %s: (?:begin|end)" % name.encode()
    return re.search(mark, found, re.MULTILINE) is not None


def _find_block(found: bytes, name: str) -> tuple[re.Match[bytes], re.Match[bytes]] | None:
    begin = _marks(name).search(found)
    # Editors take away the end of the last line.
    end = re.compile(rb"^# gtft deploy %s: end(?:\r?\n|\Z)" % name.encode(), re.MULTILINE)
    stop = end.search(found, begin.end()) if begin is not None else None
    return None if begin is None or stop is None else (begin, stop)


def _marks(name: str) -> re.Pattern[bytes]:
    return re.compile(
        rb"^# gtft deploy %s: begin(?P<here> here)?\r?\n" % name.encode(), re.MULTILINE
    )


def _put_block(
    rest: bytes, name: str, lines: list[str], wanted: Mapping[str, Any], path: Path
) -> bytes:
    """The file with our block at the last place where it means what we want."""
    newline = "\r\n" if b"\r\n" in rest else "\n"
    glued = bool(rest) and not rest.endswith(b"\n")
    for at in _list_places(rest):
        here = " here" if glued and at == len(rest) else ""
        text = [f"# gtft deploy {name}: begin{here}", *lines, f"# gtft deploy {name}: end", ""]
        block = (newline if here else "").encode() + newline.join(text).encode()
        new = rest[:at] + block + rest[at:]
        try:
            fits = tomli.loads(new.decode()) == wanted
        except (tomli.TOMLDecodeError, RecursionError):
            fits = False
        if fits and take_block(new, name) == rest:
            return new
    raise TownError(
        f"{path} cannot be edited without touching what is yours",
        why="it writes upstreams or patches in one line, or as dotted keys, to which nothing can be added behind",
        fix="write them as [upstreams.NAME] and [[patches.agent]] tables, then the same command again",
    )


def _list_places(rest: bytes) -> Iterator[int]:
    """The end, then before each table from the last one upwards: a block begins with a table of its own."""
    yield len(rest)
    heads = [m.start() for m in re.finditer(rb"^[ \t]*\[", rest, re.MULTILINE)]
    yield from reversed(heads[-200:])


def _place(
    doc: Mapping[str, Any],
    path: Path,
    role: str,
    rig: str,
    agent: str,
    settings: Mapping[str, Any],
) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The document as it is wanted, the head of our table in it, and its content.

    A rig's own agent is patched below its ``[[rigs]]`` (gc patches the city before it expands the rigs), every other
    one with ``[[patches.agent]]``.
    """
    wanted: dict[str, Any] = copy.deepcopy(dict(doc))
    inline = _list_tables(doc, "agent")
    is_inline = any((a.get("dir") or "") == rig and a.get("name") == role for a in inline)
    if rig and not is_inline:
        rigs = _list_tables(wanted, "rigs")
        mine = next((r for r in rigs if r.get("name") == rig), None)
        if mine is None:
            known = ", ".join(str(r.get("name")) for r in rigs) or "none"
            raise TownError(f"{rig} is not a rig of this city", why=f"{path} has: {known}")
        key = "patches" if "patches" in mine else "overrides"
        patch = {"agent": (agent or role).rpartition("/")[2].rpartition(".")[2], **settings}
        mine.setdefault(key, []).append(patch)
        return wanted, f"[[rigs.{key}]]", patch
    own = (path.parent / "agents" / role).is_dir()
    if not (agent or is_inline or own):
        raise TownError(
            f"which agent of this city is the {role} is not known",
            why=f"{path} and agents/ name none, and gc loads no city whose patch fits no agent",
            fix="say it as gc does, such as --agent gastown.witness; or the rig: --rig NAME",
        )
    patch = {**({"dir": rig} if rig else {}), "name": agent or role, **settings}
    wanted.setdefault("patches", {}).setdefault("agent", []).append(patch)
    return wanted, "[[patches.agent]]", patch


def _write_table(values: Mapping[str, Any]) -> list[str]:
    """Keys with texts, and tables of texts in one line."""
    return [
        f"{key} = {{ {', '.join(f'{k} = {_quote(v)}' for k, v in value.items())} }}"
        if isinstance(value, dict)
        else f"{key} = {_quote(value)}"
        for key, value in values.items()
    ]


def _quote(text: str) -> str:
    # Every text is checked to be plain ASCII, and of that TOML's basic strings are JSON's.
    return json.dumps(text)


def _check_values(base_url: str, key_env: str, model: str, agent: str) -> None:
    url = urlsplit(base_url)
    if (
        url.scheme not in ("http", "https")
        or not url.hostname
        or url.username is not None
        or not re.fullmatch(r"[!-~]{1,500}", base_url)
    ):
        raise UsageError(f"{base_url!r} is no address of an endpoint", why="http or https, no user")
    if key_env and not _VARIABLE.fullmatch(key_env):
        raise UsageError(
            f"{key_env!r} is no name of a variable",
            why="a key stays out of city.toml: the file names the variable that holds it",
        )
    if model and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}", model):
        raise UsageError(f"{model!r} is no name of a model")
    if agent and not _AGENT.fullmatch(agent.rpartition("/")[2]):
        raise UsageError(f"{agent!r} is no identity of an agent")


def _find_reads(provider: str, doc: Mapping[str, Any]) -> tuple[str, str]:
    """The variables of a provider, or of the one that the city's own is based on."""
    own = (doc.get("providers") or {}).get(provider)
    based = str(own.get("base") or provider) if isinstance(own, dict) else provider
    reads = _READS.get(based.removeprefix("builtin:"))
    if reads is None or not _NAME.fullmatch(provider):
        raise UsageError(
            f"the provider {provider} cannot be pointed at an endpoint of gtft",
            why=f"known are {', '.join(_READS)}, and providers of this city that are based on one",
        )
    return reads


def _read(root: Path) -> tuple[Path, bytes, int]:
    path = root / CITY
    if is_link(path, root):
        raise TownError(
            f"{path} is a symbolic link", why="what is behind it may be shared with others"
        )
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            raise TownError(f"{path} is no plain file of a city")
        data = read_bytes(path)
    except FileNotFoundError as e:
        raise TownError(
            f"there is no city at {root}", why=f"{CITY} is not there", fix="gc init"
        ) from e
    except OSError as e:
        raise translate_os_error(e, f"reading {CITY}") from e
    return path, data or b"", stat.S_IMODE(found.st_mode)


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    """Raises TownError when it is no TOML, or when what we add to is not what gc has there."""
    try:
        doc = tomli.loads(data.decode())
        for key in ("upstreams", "patches", "providers"):
            if not isinstance(doc.get(key, {}), dict):
                raise ValueError(f"{key} is not a table")
        rigs = _list_tables(doc, "rigs")
        for table, key in ((doc, "agent"), (doc.get("patches", {}), "agent")):
            _list_tables(table, key)
        for rig in rigs:
            _list_tables(rig, "patches")
            _list_tables(rig, "overrides")
    except (ValueError, RecursionError) as e:
        raise TownError(
            f"{path} cannot be read", why=str(e), fix="mend it (gc config show must read it)"
        ) from e
    return doc


def _list_tables(table: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    found = table.get(key, [])
    if not isinstance(found, list) or not all(isinstance(t, dict) for t in found):
        raise ValueError(f"{key} is not an array of tables")
    return found
