"""Which files of a town or city a deployment edits, and what they become: all of it before anything is written."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gtft.errors import InputError, TownError
from gtft.records.rows import ModelRow
from gtft.runner.endpoint import name_path
from gtft.runner.switch import (
    Edit,
    FileEntry,
    Journal,
    Launch,
    Previous,
    decode,
    encode,
    find_journal,
    hash_bytes,
    strip,
)
from gtft.runner.workspace import Workspace
from gtft.service import Mode
from gtft.tool import find_tool, run_tool
from gtft.town import city
from gtft.town.agents import TOKEN_KEYS, URL_KEYS, Protocol
from gtft.town.directive import put_block, word_advice
from gtft.town.launch import PROGRAMS, word_program, word_wrapper
from gtft.town.parts import is_link
from gtft.town.role import RoleAgent, find_prompt_style, list_made, make_config, name_agent
from gtft.town.settings import (
    SettingsFile,
    check_writable,
    parse_settings,
    put_agent,
    read_bytes,
)


@dataclass(frozen=True)
class Wanted:
    """What was asked for. ``url``: the server, "" for shadow; ``named``: the agent that is to run the model, "" = the
    role's own; ``force`` and ``accepted``: why gates may be passed; ``launcher``: what stands before the agent;
    ``form``: how a Gas City is told."""

    model: ModelRow
    mode: Mode
    role: str
    rig: str
    url: str
    actor: str
    named: str = ""
    force: str = ""
    accepted: str = ""
    launcher: tuple[str, ...] = ("gtft",)
    form: city.Form = "upstream"


def with_launcher(ws: Workspace, wanted: Wanted, program: tuple[str, ...]) -> Wanted:
    """``gtft deploy launch JOURNAL --`` for this place. ``program``: the words of ``gtft``."""
    journal = find_journal(ws.path, wanted.role, wanted.rig).absolute()
    return replace(wanted, launcher=word_wrapper(program, journal))


def find_city(ws: Workspace) -> Path | None:
    """The Gas City that the workspace is in, or that gc runs us for; None without one."""
    given = ws.environ.get("GC_CITY_PATH")
    folders = [*ws.path.parents, *([Path(given)] if given else [])]
    return next((f for f in folders if (f / city.CITY).is_file()), None)


def with_city_form(ws: Workspace, wanted: Wanted) -> Wanted:
    """As the ``gc`` on PATH knows it, asked about a city of nothing but an upstream: builds of April 2026 know none."""
    if wanted.mode != "live" or find_city(ws) is None or find_tool("gc", ws.environ) is None:
        return wanted
    with TemporaryDirectory() as folder:
        text = '[workspace]\nname = "gtft"\n\n[upstreams.gtft]\nbase_url = "http://127.0.0.1:1"\n'
        Path(folder, city.CITY).write_text(text)
        argv = ("--city", folder, "config", "show")
        said = run_tool("gc", *argv, environ=ws.environ, cwd=Path(folder))
    unknown = 'unknown field "upstreams' in said.stderr
    return replace(wanted, form="env") if unknown else wanted


def plan_files(
    ws: Workspace, root: Path, wanted: Wanted, was: Journal | None, agent: RoleAgent | None
) -> list[tuple[Edit, FileEntry]]:
    """The files that this mode edits, and those of the mode before, which are put back."""
    home = root / wanted.rig if wanted.rig else root
    directive = home / "directives" / f"{wanted.role}.md"
    wants: dict[Path, str] = {}
    if agent is not None:
        wants[agent.file.path] = "settings"
    if wanted.mode == "advise":
        wants[directive] = "directive"
    known = (
        {Path(os.path.normpath(ws.path / was.root / e.path)): e for e in was.files} if was else {}
    )
    found: list[tuple[Edit, FileEntry]] = []
    for path in dict.fromkeys((*known, *wants)):
        entry = known.get(path)
        kind = wants.get(path) or (entry.kind if entry is not None else "")
        if is_link(path, root):
            raise InputError(
                f"{path} is a symbolic link", why="gtft does not write through links", fix=str(path)
            )
        check_writable(path)
        now = read_bytes(path)
        base, mode = _find_base(path, now, entry, wanted.role)
        new = base
        # What of ours may still be found there while it is taken out.
        fields: dict[str, Any] = (
            entry.model_dump(include={"agent", "previous", "made"}) if entry is not None else {}
        )
        if path in wants and kind == "settings":
            assert agent is not None
            fields, new = _edit_settings(ws, wanted, agent, base, entry)
        elif path in wants:
            new = put_block(base, word_advice(wanted.role, wanted.rig, wanted.model.name))
        made = FileEntry(
            path=str(path.relative_to(root)),
            kind="settings" if kind == "settings" else "directive",
            before=encode(base),
            found=encode(now),
            left=hash_bytes(new),
            mode=mode,
            **fields,
        )
        found.append((Edit(path, now, new, mode), made))
    return found


def _find_base(
    path: Path, now: bytes | None, entry: FileEntry | None, role: str
) -> tuple[bytes | None, int]:
    """The file as it would be without gtft, and its permission bits."""
    mode = path.stat().st_mode & 0o7777 if now is not None else 0o644
    if entry is None:
        return now, mode
    if hash_bytes(now) == entry.left:
        return decode(entry.before), entry.mode
    # Somebody wrote there since: theirs stays, ours goes.
    return (None, entry.mode) if now is None else (strip(now, path, entry, role), mode)


def plan_program(ws: Workspace, wanted: Wanted, agent: RoleAgent) -> Edit:
    """The program that gt starts in the agent's place: by what is in it, so that one which somebody may still start
    never changes. It stays after a rollback, and then starts the agent as it was."""
    own, url = agent.model_agent, name_url(wanted, agent.model_agent.protocol)
    key = URL_KEYS[own.protocol or "anthropic"]
    data = word_program(wanted.launcher, own.command, key, url)
    folder = find_journal(ws.path, wanted.role, wanted.rig).absolute().parent / PROGRAMS
    path = folder / (hash_bytes(data) or "")[:12] / Path(own.command).name
    return Edit(path, read_bytes(path), data, 0o755)


def _edit_settings(
    ws: Workspace, wanted: Wanted, agent: RoleAgent, base: bytes | None, entry: FileEntry | None
) -> tuple[dict[str, Any], bytes]:
    doc = parse_settings(base, agent.file.path) if base is not None else {}
    plain = SettingsFile(agent.file.path, base, doc, agent.file.mode)
    name = name_agent(wanted.role)
    url = name_url(wanted, agent.model_agent.protocol)
    config = make_config(
        agent.model_agent,
        url,
        wanted.launcher,
        agent.wrapper,
        plan_program(ws, wanted, agent).path,
        agent.agent,
    )
    previous = (doc.get("role_agents") or {}).get(wanted.role)
    level = "rig" if wanted.rig else "town"
    new = put_agent(plain, "rig" if level == "rig" else "town", wanted.role, name, config)
    made = entry.made if entry is not None and entry.made else list_made(plain)
    return {"agent": name, "previous": previous, "made": made}, new


def plan_city_file(
    root: Path, wanted: Wanted, was: Journal | None, named: str
) -> tuple[list[tuple[Edit, FileEntry]], city.CityPlan | None]:
    """``city.toml`` of a Gas City. ``named``: the provider (claude, codex), or the agent of a pack (gastown.witness)."""
    entry = was.files[0] if was is not None and was.files else None
    if wanted.mode != "live" and entry is None:
        return [], None
    name = city.name_upstream(wanted.role, wanted.rig)
    path = root / city.CITY
    check_writable(path)
    now = read_bytes(path)
    if now is None or is_link(path, root):
        raise TownError(f"{path} is gone, or a symbolic link", fix=str(path))
    mode = path.stat().st_mode & 0o7777
    base = city.take_block(now, name)
    changed = None
    if wanted.mode == "live":
        provider = named if named in ("claude", "codex") else "claude"
        changed = city.plan_city(
            root,
            role=wanted.role,
            rig=wanted.rig,
            base_url=name_url(wanted, "openai" if provider == "codex" else "anthropic"),
            key_env="",
            model="",
            provider=provider,
            agent="" if named in ("", "claude", "codex") else named,
            form=wanted.form,
        )
    new = changed.new if changed is not None else base
    made = FileEntry(
        path=city.CITY,
        kind="city",
        before=encode(base),
        found=encode(now),
        left=hash_bytes(new),
        mode=mode,
        agent=name,
    )
    return [(Edit(path, now, new, mode), made)], changed


def name_url(wanted: Wanted, protocol: Protocol | None) -> str:
    """What an agent appends its paths to."""
    url = f"{wanted.url}{name_path(wanted.role, wanted.rig)}"
    return f"{url}/v1" if protocol == "openai" else url


def make_launch(wanted: Wanted, agent: RoleAgent) -> Launch:
    model_agent, own = agent.model_agent, agent.agent
    protocol = model_agent.protocol
    if protocol is None:
        # What `make_config` refuses, with the way on.
        raise InputError(f"{model_agent.name} cannot be pointed at a server", fix="--agent NAME")
    key = URL_KEYS[protocol]
    tokens = TOKEN_KEYS[protocol]
    previous = None
    if own.name != model_agent.name:
        previous = Previous(
            argv=(own.command, *own.args),
            env=own.env,
            prompt=find_prompt_style(own.preset, own.config),
            is_claude=own.is_claude,
        )
    # Claude Code has a login of its own; agents of the other kind stop without a key.
    needs = protocol == "openai" and not any(model_agent.env.get(t) for t in tokens)
    words = model_agent.preset.words if model_agent.preset is not None else ()
    url = name_url(wanted, protocol)
    return Launch(
        health=f"{wanted.url}/health",
        protocol=protocol,
        keys=(key,),
        given=(model_agent.command, *model_agent.args),
        env=model_agent.env,
        words=tuple(w.format(url=url) for w in words),
        token=tokens[0] if needs else "",
        previous=previous,
    )


def list_folders(root: Path, edits: list[Edit], was: Journal | None) -> tuple[str, ...]:
    """Folders of the town that are there only because of us, outermost first."""
    found = list(was.folders) if was is not None else []
    for edit in edits:
        if edit.new is None:
            continue
        for folder in reversed(edit.path.parents):
            if folder.is_relative_to(root) and folder != root and not folder.exists():
                found.append(str(folder.relative_to(root)))
    return tuple(dict.fromkeys(found))
