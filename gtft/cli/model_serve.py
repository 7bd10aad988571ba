"""``gtft model serve``: models behind an address that agents can ask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from gtft.artifact import short_id
from gtft.cli.context import open_here
from gtft.cli.output import json_option
from gtft.errors import UsageError
from gtft.models.registry import find_model, list_models
from gtft.records.deployments import Deployments
from gtft.records.rows import ModelRow
from gtft.records.store import Store
from gtft.runner.serving import Listening, serve_here
from gtft.runner.workspace import Workspace

PORT = 8750
# What a role's model is chosen by, the best first.
_PREFERRED = ("deployed", "approved")


@click.command(
    "serve",
    epilog="""\b
Examples:
  gtft model serve witness                     the role's newest model, on http://127.0.0.1:8750
  gtft model serve witness-1a2b3c --port 0     one model, on any free port
  gtft model serve --role witness --role mayor the deployed or approved models of two roles
  gtft model serve --deployed                  what gtft deploy put into service
  gtft model serve witness --host 0.0.0.0 --token-file serve.token
""",
)
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option("--role", "roles", metavar="ROLE", multiple=True, help="The model of a role.")
@click.option("--deployed", is_flag=True, help="The models that are in service.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Another needs a token.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 = any free."
)
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What clients must send; mode 600.  [default: GTFT_SERVE_TOKEN, else none]",
)
@click.option(
    "--engine",
    metavar="ENGINE",
    default="local",
    show_default=True,
    help="local, llama.cpp, transformers, vllm, or the URL of a server that runs.",
)
@click.option(
    "--queue",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Requests that may wait; further ones are told 429.",
)
@json_option
@click.pass_context
def serve(
    ctx: click.Context,
    names: tuple[str, ...],
    roles: tuple[str, ...],
    deployed: bool,
    host: str,
    port: int,
    token_file: Path | None,
    engine: str,
    queue: int,
    as_json: bool,
) -> None:
    """Answer with models until Ctrl-C: OpenAI's chat completions and Anthropic's messages, for one or several models.

    The roles that gtft deploy put into service are answered below /roles/ROLE, whatever is named here.
    """
    ws = open_here(ctx)
    models = _find(ws, names, roles)
    if not models and not deployed:
        raise UsageError(
            "there is no model to serve", fix="gtft model list, then: gtft model serve MODEL"
        )
    asked: dict[str, Any] = {
        "models": [_describe(ws, m) for m in models],
        "deployed": deployed,
        "host": host,
        "port": port,
        "token_file": str(token_file.absolute()) if token_file else None,
        "engine": engine,
        "queue": queue,
        "max_new_tokens": 1024,
        "announce": True,
    }
    if not as_json:
        click.echo("loading " + (", ".join(m.name for m in models) or "what is deployed"), err=True)

    def tell(listening: Listening) -> None:
        if as_json:
            data = {"url": listening.url, "models": listening.models, "token": listening.token}
            click.echo(json.dumps({"ok": True, "data": data}))
        else:
            click.echo(describe(listening))

    ctx.exit(serve_here(ws, Path.cwd(), os.environ, asked, tell))


def describe(listening: Listening) -> str:
    """How four kinds of clients are pointed at a server."""
    url, name = listening.url, listening.models[0]
    bare = url.removesuffix("/v1")
    key = "$GTFT_SERVE_TOKEN" if listening.token else "none"
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "options": {"baseURL": url, "apiKey": "{env:GTFT_SERVE_TOKEN}" if listening.token else key},
        "models": {m: {} for m in listening.models},
    }
    return "\n".join(
        [
            f"answers at {url}: {', '.join(listening.models)}",
            f"  openai     OPENAI_BASE_URL={url} OPENAI_API_KEY={key}    model {name}",
            f"  anthropic  ANTHROPIC_BASE_URL={bare} ANTHROPIC_API_KEY={key}    model {name}",
            f"  claude     ANTHROPIC_BASE_URL={bare} ANTHROPIC_AUTH_TOKEN={key} claude --model {name}",
            f"  codex      OPENAI_API_KEY={key} codex -c 'openai_base_url=\"{url}\"' --model {name}",
            f"  opencode   opencode -m gtft/{name}, with this in opencode.json:",
            f"             {json.dumps({'provider': {'gtft': provider}})}",
            f"  figures    {bare}/health    {bare}/metrics",
            "Ctrl-C ends it, after the answers in flight.",
        ]
    )


def _find(ws: Workspace, names: tuple[str, ...], roles: tuple[str, ...]) -> list[ModelRow]:
    found = [find_model(ws.store, n) for n in names] + [_find_of(ws.store, r) for r in roles]
    return list({m.id: m for m in found}.values())


def _find_of(store: Store, role: str) -> ModelRow:
    """The deployed model of a role, else its newest approved one. Raises UsageError."""
    models = list_models(store, role)
    for status in _PREFERRED:
        if found := next((m for m in models if m.status == status), None):
            return found
    raise UsageError(
        f"the role {role} has no model that is deployed or approved",
        why=", ".join(f"{m.name} is {m.status}" for m in models) or "it has no model at all",
        fix="gtft model list",
    )


def _describe(ws: Workspace, model: ModelRow) -> dict[str, Any]:
    row = ws.store.find_artifact(model.adapter_id)
    if row is None:
        raise UsageError(f"the adapter {short_id(model.adapter_id)} is not here", fix="gtft doctor")
    aliases = [a.name for a in Deployments(ws.store).list_aliases() if a.model_id == model.id]
    path = str(ws.artifact_path(row.path))
    return {"name": model.name, "adapter": path, "role": model.role, "aliases": aliases}


COMMANDS: tuple[click.Command, ...] = (serve,)
