"""Hand-made swarms: an operator, peers with real keys, a member file and what can be done to it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gtft.artifact import canonical_json
from gtft.recipe.schema import Recipe, Train
from gtft.swarm.document import Members
from gtft.swarm.founding import Card, found_swarm
from gtft.swarm.keys import Identity, ensure_identity, read_operator
from gtft.swarm.place import MEMBERS, SeatFile, identity_folder, keep_members, write_seat

NOW = 1_800_000_000.0
BASE = "sha256:" + "b" * 64


def make_recipe(**train: Any) -> Recipe:
    return Recipe(role="witness", train=Train(engine="swarm", **train))


def make_peer(workspace: Path, name: str, port: int = 0) -> tuple[Card, Identity]:
    """A workspace's identity and its card."""
    identity = ensure_identity(identity_folder(workspace))
    announce = (f"/ip4/127.0.0.1/tcp/{port}",) if port else ()
    return Card(name=name, public_key=identity.public_key, announce=announce), identity


def make_swarm(
    workspace: Path, *cards: Card, port: int = 31399, base: str = BASE, now: float = NOW
) -> Path:
    """A swarm founded in ``workspace`` with these peers; returns its folder."""
    own, identity = make_peer(workspace, "ada", port)
    return found_swarm(
        workspace,
        "crew",
        own,
        identity,
        cards,
        recipe=make_recipe(),
        formula="mol-test",
        base=(base, "tiny"),
        bootstrap=(),
        days=30,
        now=now,
    )


def hand_over(folder: Path, workspace: Path, run: str = "", port: int = 0) -> Path:
    """The member file of ``folder`` in another workspace, with a seat when ``run`` is given."""
    there = workspace / "swarms" / folder.name
    keep_members(there, (folder / MEMBERS).read_bytes())
    if run:
        write_seat(there, SeatFile(run=run, listen=(f"/ip4/127.0.0.1/tcp/{port}",)))
    return there


def sign_again(folder: Path, **changes: Any) -> bytes:
    """The member file with other fields, signed by the real operator: what only the operator could write."""
    from gtft.swarm.keys import OPERATOR

    operator = read_operator(folder / OPERATOR)
    document = {**json.loads((folder / MEMBERS).read_bytes())["document"], **changes}
    mark = operator.sign(b"gtft swarm members 1\n" + canonical_json(document).encode())
    return (canonical_json({"document": document, "signature": mark}) + "\n").encode()


def change(members: Members, **fields: Any) -> Members:
    return members.model_copy(update=fields)


@contextmanager
def refused(kind: type[Exception], text: str) -> Iterator[None]:
    """The error has a next command and says ``text``."""
    import pytest

    with pytest.raises(kind, match=re.escape(text)) as caught:
        yield
    assert getattr(caught.value, "fix", "x"), "an error without a next command"
