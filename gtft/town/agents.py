"""Which agent runs a role of the town, as gt 1.1.0 finds it (internal/config/{agents,loader}.go of gastown).

An agent is a name and a RuntimeConfig: custom in ``agents`` of a settings file, or a preset, gt's own or one of
``settings/agents.json``. A role's agent is that of ``role_agents``, else the rig's, else the town's default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gtft.errors import TownError

ROLES = ("mayor", "deacon", "witness", "refinery", "polecat", "crew", "boot", "dog")
# Those that gt starts once a town, whatever a rig's settings say.
TOWN_ROLES = ("mayor", "deacon", "boot", "dog")
DEFAULT = "claude"
# The agent that a rig's settings spell out, which has no name there.
RUNTIME = "runtime"
# GT_COST_TIER decides before role_agents for these (cost_tier.go), unless the agent is not Claude.
TIERS = ("standard", "economy", "budget")

Protocol = Literal["anthropic", "openai"]
URL_KEYS: dict[Protocol, str] = {"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}
TOKEN_KEYS: dict[Protocol, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "openai": ("OPENAI_API_KEY",),
}
# Where an agent of that protocol goes when nothing else is set.
HOME_URLS: dict[Protocol, str] = {
    "anthropic": "https://api.anthropic.com",
    "openai": "https://api.openai.com/v1",
}


@dataclass(frozen=True)
class Preset:
    """A built-in agent of gt: what is started, and how. ``protocol`` None: it speaks to its own service only."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    protocol: Protocol | None = None
    # How a first prompt is handed over: behind an option, as the last argument (""), or not at all (None).
    prompt: str | None = ""
    # What its command line says of the server, where it reads no variable of the protocol's.
    words: tuple[str, ...] = ()


PRESETS: dict[str, Preset] = {
    "claude": Preset("claude", ("--dangerously-skip-permissions",), protocol="anthropic"),
    "gemini": Preset("gemini", ("--approval-mode", "yolo"), prompt="-i"),
    "codex": Preset(
        "codex",
        ("--dangerously-bypass-approvals-and-sandbox",),
        protocol="openai",
        prompt=None,
        # It has not read OPENAI_BASE_URL since openai/codex#16720 (April 2026).
        words=("-c", 'openai_base_url="{url}"'),
    ),
    "cursor": Preset("cursor-agent", ("-f",)),
    "auggie": Preset("auggie", ("--allow-indexing",)),
    "amp": Preset("amp", ("--dangerously-allow-all", "--no-ide")),
    "opencode": Preset(
        "opencode",
        env={"OPENCODE_PERMISSION": '{"*":"allow"}'},
        protocol="openai",
        prompt="--prompt",
    ),
    "copilot": Preset("copilot", ("--yolo",), prompt="-i"),
    "pi": Preset("pi", ("-e", ".pi/extensions/gastown-hooks.js")),
    "omp": Preset("omp", ("--hook", ".omp/hooks/gastown-hook.ts")),
    "vibe": Preset("vibe", ("--agent", "auto-approve")),
    "groq-compound": Preset(
        "claude",
        ("--dangerously-skip-permissions",),
        {
            "ANTHROPIC_BASE_URL": "https://api.groq.com/openai/v1",
            "ANTHROPIC_MODEL": "compound-beta",
            "ANTHROPIC_API_KEY": "$GROQ_API_KEY",
        },
        "anthropic",
    ),
}


@dataclass(frozen=True)
class Agent:
    """An agent of the town. ``config``: its RuntimeConfig, complete enough to be repeated under another name.

    ``entry``: what ``role_agents`` of the file that is edited says now; None when it says nothing.
    """

    name: str
    config: dict[str, Any]
    entry: str | None = None

    @property
    def command(self) -> str:
        return str(self.config.get("command") or DEFAULT)

    @property
    def args(self) -> tuple[str, ...]:
        return tuple(map(str, self.config.get("args") or ()))

    @property
    def env(self) -> dict[str, str]:
        env = self.config.get("env")
        return {str(k): str(v) for k, v in env.items()} if isinstance(env, dict) else {}

    @property
    def preset(self) -> Preset | None:
        """The preset whose manners it has: by its provider, else by its command."""
        known = PRESETS.get(str(self.config.get("provider") or ""))
        return known or next(
            (p for p in PRESETS.values() if p.command == Path(self.command).name), None
        )

    @property
    def is_claude(self) -> bool:
        """As gt decides it: the provider's word, else the command's name."""
        provider = self.config.get("provider")
        return provider == "claude" if provider else Path(self.command).stem == "claude"

    @property
    def protocol(self) -> Protocol | None:
        """What it speaks to a server that it is pointed at; None when it cannot be pointed at one."""
        for protocol, key in URL_KEYS.items():
            if self.env.get(key):
                return protocol
        return self.preset.protocol if self.preset else None

    @property
    def upstream(self) -> str:
        """The server that it asks today."""
        protocol = self.protocol
        if protocol is None:
            return ""
        return self.env.get(URL_KEYS[protocol]) or HOME_URLS[protocol]


@dataclass(frozen=True)
class Roster:
    """The settings of a town and of one of its rigs, as gt reads them. ``rig`` is empty without one.

    ``presets``: the ``agents`` of the town's ``agents.json`` and then of the rig's.
    """

    town: Mapping[str, Any]
    rig: Mapping[str, Any] = field(default_factory=dict)
    presets: Sequence[Mapping[str, Any]] = ()

    def find(self, role: str) -> Agent:
        """The agent that runs ``role``. Raises TownError when the settings name one that is not there."""
        for settings in (self.rig, self.town):
            name = _table(settings, "role_agents").get(role)
            if isinstance(name, str) and name:
                return self.get(name)
        if isinstance(self.rig.get("runtime"), dict):
            return _complete(RUNTIME, dict(self.rig["runtime"]), self.presets)
        name = self.rig.get("agent") or self.town.get("default_agent") or DEFAULT
        return self.get(str(name))

    def get(self, name: str) -> Agent:
        """An agent by name: the rig's, the town's, then the presets. Raises TownError when there is none."""
        for settings in (self.rig, self.town):
            config = _table(settings, "agents").get(name)
            if isinstance(config, dict):
                return _complete(name, dict(config), self.presets)
        found = _find_preset(name, self.presets)
        if found is None:
            known = {*PRESETS, *_table(self.town, "agents"), *_table(self.rig, "agents")}
            raise TownError(
                f"the town has no agent {name}",
                why=f"gt would fall back to its default; known: {', '.join(sorted(known))}",
                fix="gt config agent list",
            )
        return Agent(name, found)


def _find_preset(name: str, files: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """A preset as a RuntimeConfig: gt then fills in what belongs to the provider by itself."""
    known = PRESETS.get(name)
    config: dict[str, Any] = {"provider": name}
    if known is not None:
        config |= {"command": known.command, "args": list(known.args)}
        if known.env:
            config["env"] = dict(known.env)
    for agents in files:
        if isinstance(found := agents.get(name), dict):
            known = known or Preset("")
            config |= {k: found[k] for k in ("command", "args", "env") if k in found}
    return config if known is not None else None


def _complete(name: str, config: dict[str, Any], files: Sequence[Mapping[str, Any]]) -> Agent:
    """A custom agent with the command, arguments and variables that gt would start it with."""
    known = str(config.get("provider") or config.get("command") or "")
    preset = Agent(known, _find_preset(known, files) or _find_preset(DEFAULT, files) or {})
    agent = Agent(name, config)
    if not config.get("command"):
        config["command"] = preset.command
    if not isinstance(config.get("args"), list):
        config["args"] = list(preset.args)
    if preset.env:
        config["env"] = preset.env | agent.env
    return agent


def _table(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = settings.get(key)
    return found if isinstance(found, dict) else {}
