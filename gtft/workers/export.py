"""The export worker: ``python -m gtft.workers.export FILE``. Makes one export of one adapter.

``FILE`` is JSON: ``name`` (of the model), ``adapter`` (folder of the artifact), ``adapter_id``, ``card_id`` (what both must be), ``workspace``, ``root``, ``artifacts``, ``card`` (folder, ""
for none), ``format``, ``dtype``, ``quant``, ``verify``. Every line on stdout is JSON: ``doing``, ``done``, ``total`` on the
way, then ``artifact`` (its folder) or ``error``. It ends when stdin closes: whoever asked is gone, and what is half made is
removed by the next one.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from gtft.errors import GtftError, UsageError, translate_os_error
from gtft.exports.making import make_export
from gtft.exports.source import Asked, find_source
from gtft.training.environment import prepare_environment, require_training_extra


def export(asked: dict[str, Any]) -> Path:
    """The folder of the finished artifact. Raises GtftError."""
    require_training_extra()
    prepare_environment(os.environ, offline=True)
    source = find_source(
        asked["name"],
        Path(asked["adapter"]),
        workspace=Path(asked["workspace"]),
        root=Path(asked["root"]),
        artifacts=Path(asked["artifacts"]),
        card=Path(asked["card"]) if asked["card"] else None,
        adapter_id=asked["adapter_id"],
        card_id=asked["card_id"],
    )
    wanted = Asked(asked["format"], asked["dtype"], asked["quant"], bool(asked["verify"]))
    return make_export(source, wanted, Path(asked["artifacts"]), _say).path


def _say(doing: str, done: int, total: int) -> None:
    _tell({"doing": doing, "done": done, "total": total})


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_the_asker() -> None:
    # Not sys.stdin: its lock would be held when the interpreter ends.
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    try:
        path = export(json.loads(Path(sys.argv[1]).read_text("utf-8")))
    except GtftError as e:
        error = e
    except OSError as e:
        error = translate_os_error(e, "making an export")
    except (ValueError, LookupError) as e:
        error = UsageError("it cannot be exported", why=repr(e)[:300])
    else:
        _tell({"artifact": str(path)})
        return
    _tell({"error": error.as_dict()})
    sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
