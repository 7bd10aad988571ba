"""A role of the town and the agent that runs it: what gtft may put in its place, and what it may not."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli

from gtft.errors import TownError
from gtft.tool import find_tool
from gtft.town.agents import (
    DEFAULT,
    PRESETS,
    ROLES,
    RUNTIME,
    TIERS,
    TOWN_ROLES,
    URL_KEYS,
    Agent,
    Preset,
    Roster,
)
from gtft.town.locate import Rig, Town
from gtft.town.settings import OUR_KEYS, SETTINGS, SettingsFile, is_ours, read_roster, read_settings

# What role_agents said before ours, by rig ("" = the town) and role: as the journals know it.
Entries = Mapping[tuple[str, str], str | None]

_BUILT_IN_START = "claude --dangerously-skip-permissions"

# How gt starts anew what runs already.
_RESTARTS = {
    "mayor": "gt mayor restart",
    "deacon": "gt deacon restart",
    "witness": "gt witness restart {rig}",
    "refinery": "gt refinery restart {rig}",
    "crew": "gt crew restart NAME --rig {rig}",
}


@dataclass(frozen=True)
class RoleAgent:
    """Who runs a role today. ``model_agent`` is the one that is to run the model: the same, unless another was named.

    ``wrapper``: what a rig starts its agents through. ``notes``: what else decides, for people.
    """

    role: str
    rig: str
    file: SettingsFile
    agent: Agent
    model_agent: Agent
    wrapper: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def name_agent(role: str) -> str:
    return f"gtft-{role}"


def check_place(town: Town, role: str, rig: str) -> Rig | None:
    """The rig that is meant. Raises TownError for a role or rig that is not there."""
    if role not in ROLES:
        raise TownError(
            f"{role} is no role of a town",
            why=f"gt knows {', '.join(ROLES)}",
            fix="gtft deploy --help",
        )
    if rig and role in TOWN_ROLES:
        raise TownError(
            f"{role} is a role of the whole town, not of a rig",
            why="gt does not read a rig's settings for it",
            fix=f"the same command without --rig {rig}",
        )
    return town.rig(rig) if rig else None


def find_role_agent(
    town: Town,
    role: str,
    rig: str,
    named: str,
    environ: Mapping[str, str],
    entries: Entries,
) -> RoleAgent:
    """Who runs the role, with our own agents looked through. Raises TownError where gt would not do as we say."""
    of = check_place(town, role, rig)
    home = town.root if of is None else of.path
    roster = _read_without_ours(town, of, entries)
    agent = roster.find(role)
    model_agent = roster.get(named) if named else agent
    if is_ours(model_agent.config):
        raise TownError(
            f"{model_agent.name} is an agent that gtft made",
            why="it asks the served model already",
            fix="--agent with another one (gt config agent list)",
        )
    wrapper = tuple(_read_wrapper(roster.rig))
    notes: list[str] = []
    if of is None and role not in TOWN_ROLES:
        notes += _check_rigs(town, role, agent, entries)
    _check_start(town, of, role)
    _check_dog(role, model_agent)
    _check_tier(role, model_agent, environ)
    file = read_settings(home / SETTINGS, town.root)
    agent, model_agent = (_find_claude(a, environ) for a in (agent, model_agent))
    return RoleAgent(role, rig, file, agent, model_agent, wrapper, tuple(notes))


def _find_claude(agent: Agent, environ: Mapping[str, str]) -> Agent:
    """gt finds Claude Code in a folder of its own too, but not for an agent that is in the settings."""
    local = Path(environ.get("HOME") or "/") / ".claude" / "local" / "claude"
    if agent.command != "claude" or find_tool("claude", environ) or not local.is_file():
        return agent
    return replace(agent, config={**agent.config, "command": str(local)})


def make_config(
    agent: Agent,
    url: str,
    launcher: Sequence[str],
    wrapper: Sequence[str],
    program: Path,
    previous: Agent,
) -> dict[str, Any]:
    """The agent again, asking ``url`` and started through ``launcher``. ``program``: what gt starts in its place, by
    the agent's own file name, which tells gt what it is; ``previous``: whose name gt's session is to have.

    gt puts the wrapper's and the program's words unquoted into a shell command. Raises TownError when the agent cannot
    be pointed at a server."""
    protocol = agent.protocol
    if protocol is None:
        raise TownError(
            f"the agent {agent.name} ({agent.command}) cannot be pointed at another server",
            why="it speaks to its own service only, or gtft does not know by which variable it is told",
            fix="name one that can: --agent claude, or agent = … in [gtft.deploy] of the recipe",
        )
    own = agent.config.get("exec_wrapper") or list(wrapper)
    config = {k: v for k, v in agent.config.items() if k not in ("env", "exec_wrapper")}
    config["command"] = re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", str(program))
    # What gt finds by the command's name, where no provider is given.
    if not config.get("provider") and agent.command in PRESETS:
        config["provider"] = agent.command
    config["env"] = {**agent.env, URL_KEYS[protocol]: url, "GT_AGENT": _name_for_gt(previous)}
    config["exec_wrapper"] = [shlex.quote(w) for w in launcher] + [str(w) for w in own]
    return config


def _name_for_gt(agent: Agent) -> str:
    if agent.name != RUNTIME:
        return agent.name
    return str(agent.config.get("provider") or agent.config.get("command") or DEFAULT)


def list_made(found: SettingsFile) -> tuple[str, ...]:
    """The objects of the file that will be there only because of gtft, this deployment or another one."""
    agents, roles = (found.doc.get(k) or {} for k in OUR_KEYS)
    ours = {n for n, c in agents.items() if is_ours(c)}
    only = {
        "agents": bool(agents) and set(agents) == ours,
        "role_agents": bool(roles) and set(roles.values()) <= ours,
    }
    return tuple(k for k in OUR_KEYS if k not in found.doc or only[k])


def _read_without_ours(town: Town, rig: Rig | None, entries: Entries) -> Roster:
    """The roster as it was before gtft: a role of ours has its previous entry again."""

    def strip(settings: Mapping[str, Any], of: str) -> Mapping[str, Any]:
        agents, roles = settings.get("agents") or {}, settings.get("role_agents") or {}
        ours = {n for n, c in agents.items() if is_ours(c)}
        before = {r: entries.get((of, r)) if n in ours else n for r, n in roles.items()}
        return {**settings, "role_agents": {r: n for r, n in before.items() if n}}

    found = read_roster(town.root, None if rig is None else rig.path)
    of = "" if rig is None else rig.name
    return Roster(strip(found.town, ""), strip(found.rig, of), found.presets)


def _read_wrapper(rig: Mapping[str, Any]) -> list[str]:
    runtime = rig.get("runtime")
    found = runtime.get("exec_wrapper") if isinstance(runtime, dict) else None
    return [str(w) for w in found] if isinstance(found, list) else []


def _check_rigs(town: Town, role: str, agent: Agent, entries: Entries) -> Iterator[str]:
    """A town-wide entry comes before a rig's default agent and hides a rig's wrapper."""
    for rig in town.rigs:
        roster = _read_without_ours(town, rig, entries)
        if (roster.rig.get("role_agents") or {}).get(role):
            yield f"{rig.name} has an agent of its own for {role} and is not affected"
            continue
        theirs = roster.find(role)
        if (theirs.name, theirs.config) != (agent.name, agent.config) or _read_wrapper(roster.rig):
            raise TownError(
                f"the rig {rig.name} runs its {role} otherwise than the town does",
                why=f"{theirs.name} there, {agent.name} in the town: one entry for both would change that",
                fix=f"the same command with --rig {rig.name}",
            )


def _check_start(town: Town, rig: Rig | None, role: str) -> None:
    """A start_command of the operator's is skipped by gt as soon as role_agents names an agent."""
    rigs = (rig,) if rig is not None else town.rigs
    for folder in (town.root, *(r.path for r in rigs)):
        path = folder / "roles" / f"{role}.toml"
        try:
            session = tomli.loads(path.read_text("utf-8")).get("session") or {}
        except FileNotFoundError:
            continue
        except (OSError, ValueError, AttributeError) as e:
            raise TownError(f"{path} cannot be read", why=str(e), fix="gt role show") from e
        command = str(session.get("start_command") or "").removeprefix("exec ")
        if command and command != _BUILT_IN_START:
            raise TownError(
                f"{path} starts the {role} with a command of its own",
                why="gt would no longer use it once role_agents names an agent",
                fix="make an agent of it (gt config agent set NAME COMMAND), name it in role_agents, then again",
            )


def _check_dog(role: str, agent: Agent) -> None:
    if role == "dog" and agent.is_claude:
        raise TownError(
            "gt starts every dog with its own small Claude model, whatever the settings say",
            why="role_agents.dog is heeded only for an agent of another provider",
            fix="--agent NAME with such an agent (gt config agent list), or --mode shadow",
        )


def _check_tier(role: str, agent: Agent, environ: Mapping[str, str]) -> None:
    tier = environ.get("GT_COST_TIER", "")
    if tier in TIERS and agent.is_claude:
        raise TownError(
            f"GT_COST_TIER={tier} decides which model the {role} runs on",
            why="gt heeds it before role_agents",
            fix="unset GT_COST_TIER where the town is started, then again",
        )


def find_prompt_style(preset: Preset | None, config: Mapping[str, Any]) -> str | None:
    """How gt hands a first prompt to this agent: behind an option, as the last argument (""), or not (None)."""
    mode = config.get("prompt_mode")
    if mode == "none" or (not mode and preset is not None and preset.prompt is None):
        return None
    return (preset.prompt if preset is not None else "") or ""


def say_restart(role: str, rig: str, town: Town | None) -> str:
    """The command of gt's that starts a role's agent anew; gtft never does."""
    command = _RESTARTS.get(role)
    if command is None:
        return "Those that run go on as they are."
    rigs = [rig] if rig else [r.name for r in town.rigs] if town is not None else []
    commands = dict.fromkeys(command.format(rig=r) for r in rigs or ["RIG"])
    return f"One that runs goes on as it was started, until: {', '.join(commands)}"
