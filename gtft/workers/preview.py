"""The preview worker: ``python -m gtft.workers.preview < REQUEST``. Examples as the tokens that are trained.

It is asked by ``gtft corpus preview --tokens``, not by a run: a JSON request on stdin, JSON lines on stdout,
one for each example, or one ``{"error": …}``. Nothing is written to disk.

    {"base": folder, "max_length": tokens, "examples": [{…a line of train.jsonl…, "side": "train"}]}
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gtft.errors import GtftError, InputError
from gtft.training.environment import prepare_environment, require_training_extra

if TYPE_CHECKING:
    from gtft.training.render import Renderer, Row

TRAINED, CONTEXT, MASKED = "trained", "context", "masked"


def preview(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The examples of a request, each with its rows in pieces of one kind.

    Kinds: ``trained``; ``context`` (read, not trained); ``masked`` (an assistant's turn that another row
    trains, or that is held out). Raises BaseMissing and MissingExtra.
    """
    require_training_extra()
    prepare_environment(os.environ, offline=True)
    from gtft.training.base import BaseModel, load_tokenizer
    from gtft.training.examples import Conversation
    from gtft.training.render import Renderer

    folder = Path(request["base"])
    tokenizer = load_tokenizer(BaseModel(folder.name, folder, str(folder), None, "none", ()))
    renderer = Renderer(tokenizer, request["max_length"])
    for doc in request["examples"]:
        conversation = Conversation(
            doc["id"], tuple(doc["messages"]), tuple(doc["tools"]), doc["weight"]
        )
        done = renderer.render(conversation)
        trains = doc["side"] == "train"
        yield {
            "id": doc["id"],
            "causes": list(done.causes),
            "rows": [_describe(row, done.rows, renderer, trains) for row in done.rows],
        }


def _describe(row: Row, rows: tuple[Row, ...], renderer: Renderer, trains: bool) -> dict[str, Any]:
    kinds = [CONTEXT] * len(row.input_ids)
    for other in rows:
        if other is not row:
            for first, last in other.spans:
                _mark(kinds, row.input_ids, other.input_ids[first:last], MASKED)
    for first, last in row.spans:
        kinds[first:last] = [TRAINED if trains else MASKED] * (last - first)
    supervised = row.supervised if trains else 0
    return {
        "tokens": len(row.input_ids),
        "supervised": supervised,
        "context": len(row.input_ids) - supervised,
        "turns": len(row.spans),
        "cut_messages": row.cut,
        "weight": row.weight,
        "pieces": list(_read_pieces(row, kinds, renderer.tokenizer)),
    }


def _mark(kinds: list[str], ids: array[int], turn: array[int], kind: str) -> None:
    """Mark where ``turn`` stands in ``ids``, the first time."""
    step = ids.itemsize
    raw, wanted = ids.tobytes(), turn.tobytes()
    at = raw.find(wanted)
    while at % step and at >= 0:
        at = raw.find(wanted, at + 1)
    if at >= 0:
        kinds[at // step : at // step + len(turn)] = [kind] * len(turn)


def _read_pieces(row: Row, kinds: list[str], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """Runs of one kind. ``tokens``: [text, how many] (a character may take several tokens)."""
    tokens: list[list[Any]] = []
    held: list[int] = []
    for at, token in enumerate(row.input_ids):
        held.append(token)
        text = tokenizer.decode(held, skip_special_tokens=False)
        ends = at + 1 == len(kinds) or kinds[at + 1] != kinds[at]
        if ends or not text.endswith("\ufffd"):
            tokens.append([text, len(held)])
            held = []
        if ends:
            yield {"kind": kinds[at], "tokens": tokens}
            tokens = []


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> int:
    """Answer one request; the exit code is the error's."""
    try:
        request = json.load(sys.stdin)
        for line in preview(request):
            _say(line)
    except GtftError as e:
        _say({"error": e.as_dict()})
        return e.exit_code
    except (OSError, ValueError, KeyError, TypeError) as e:
        bad = InputError(
            "the request cannot be previewed", why=f"{type(e).__name__}: {e}", fix="gtft doctor"
        )
        _say({"error": bad.as_dict()})
        return bad.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
