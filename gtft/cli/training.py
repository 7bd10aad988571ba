"""The figures of a training in words, for ``gtft runs show`` with and without ``--watch``."""

from __future__ import annotations

from collections.abc import Sequence

from gtft.runner.box import say_size
from gtft.runner.figures import Training, say_seconds

# Of many checkpoints, so many are named.
_NAMED = 6


def say_training(t: Training) -> list[str]:
    """Where it stands, in few words each; a line of a log holds them all."""
    total = f" of {t.total}" if t.total else ""
    said = [f"step {t.step}{total}"]
    if t.loss_last is not None:
        said.append(f"loss {t.loss_last:.3f}")
    if t.validation_last is not None:
        said.append(f"held-out {t.validation_last:.3f}")
    if t.tokens_per_s_last is not None:
        said.append(f"{t.tokens_per_s_last:,.0f} tokens/s")
    if (memory := say_memory(t)) != "–":
        said.append(memory)
    return said


def describe_training(t: Training) -> list[tuple[str, str]]:
    """(what, figure) for people; what was not measured is left out."""
    lines = [("steps", f"{t.step}{f' of {t.total}' if t.total else ''}")]
    lines.append(("loss", f"{say_loss(t.loss_first)} → {say_loss(t.loss_last)}"))
    if t.validation_best is not None:
        text = f"best {t.validation_best:.3f} at step {t.validation_best_step}"
        lines.append(("held-out", f"{text}, last {say_loss(t.validation_last)}"))
    if t.general_kl is not None:
        lines.append(("KL", f"{t.general_kl:.4f} from the base, on general text"))
    if t.tokens_per_s is not None:
        ended = t.seconds is not None
        more = (
            f"{say_seconds(t.seconds or 0)} in all" if ended else f"{t.tokens_per_s_last:,.0f} now"
        )
        lines.append(("speed", f"{t.tokens_per_s:,.0f} tokens/s, {more}"))
    if t.peak_memory is not None:
        lines.append(("memory", say_memory(t)))
    if t.checkpoints:
        lines.append(
            ("saved", f"{_count(len(t.checkpoints), 'checkpoint')}: {_name(t.checkpoints)}")
        )
    if t.pauses:
        lines.append(("paused", f"at step {_name(t.pauses)}"))
    if t.resumes:
        lines.append(("resumed", f"at step {_name(t.resumes)}"))
    lines.append(("warnings", str(t.warnings)))
    return lines


def say_loss(value: float | None) -> str:
    return f"{value:.3f}" if value is not None else "–"


def say_memory(t: Training) -> str:
    """Now, while it trains, and at most; ``–`` when it was not measured."""
    ended = t.memory is None or t.seconds is not None
    said = [] if ended else [f"{say_size(t.memory or 0)} now"]
    said += [f"{say_size(t.peak_memory)} peak"] if t.peak_memory is not None else []
    return ", ".join(said) or "–"


def _name(steps: Sequence[int]) -> str:
    shown = ", ".join(map(str, steps[-_NAMED:]))
    return f"… {shown}" if len(steps) > _NAMED else shown


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
