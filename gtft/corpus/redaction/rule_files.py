"""Rule files that a town adds: gitleaks TOML, and kingfisher YAML or JSON.

Read as data: patterns, keywords, entropy, the group that is the secret, allowlists that look at the secret alone.
What cannot be applied here (paths, commits, allowlists over the line, validation over the network) is named in
``left_out``; leaving an allowlist out redacts more, never less.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from gtft.corpus.redaction.gate import compile_re2, make_gate
from gtft.corpus.redaction.rule import Guard, Rule
from gtft.corpus.redaction.rules.guards import measure_entropy
from gtft.errors import InputError, RedactionError, translate_os_error

_LARGEST = 8 << 20
_LONGEST_KIND = 60


@dataclass(frozen=True)
class RuleFile:
    """``left_out``: what of the file has no effect, one line each."""

    rules: tuple[Rule, ...]
    left_out: tuple[str, ...]


class _Allowlist(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    regexes: list[str] = []
    stopwords: list[str] = []
    target: str = Field("secret", validation_alias=AliasChoices("regexTarget", "regex_target"))
    condition: str = "OR"
    paths: list[str] = []
    commits: list[str] = []

    @property
    def applies(self) -> bool:
        """A guard sees the secret and nothing around it."""
        elsewhere = self.target not in ("", "secret") or self.paths or self.commits
        return not (elsewhere and (self.condition.upper() == "AND" or not self.stopwords))


class _Rule(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    id: str = Field(validation_alias=AliasChoices("id", "name"))
    regex: str = Field("", validation_alias=AliasChoices("regex", "pattern"))
    keywords: list[str] = []
    entropy: float = Field(0.0, validation_alias=AliasChoices("entropy", "min_entropy"))
    group: int = Field(
        0, ge=0, validation_alias=AliasChoices("secretGroup", "secret_group", "group")
    )
    allowlist: _Allowlist | None = None
    allowlists: list[_Allowlist] = []
    visible: bool = True

    @field_validator("entropy", mode="before")
    @classmethod
    def _no_entropy(cls, value: Any) -> Any:
        return 0.0 if value is None else value

    @property
    def all_allowlists(self) -> list[_Allowlist]:
        return [*self.allowlists, *([self.allowlist] if self.allowlist else [])]


def read_rule_file(path: Path) -> RuleFile:
    """The rules of a file.

    Raises InputError when it cannot be read or has another shape, RedactionError naming file and rule when a rule
    does not compile: a rule that is silently missing would be a leak.
    """
    tree = _load(path)
    found = tree.get("rules") if isinstance(tree, dict) else tree
    if not isinstance(found, list) or not found:
        raise _not_rules(path, "it holds no list of rules")
    globals_ = (
        [tree.get("allowlist"), *(tree.get("allowlists") or [])] if isinstance(tree, dict) else []
    )
    try:
        shared = [_Allowlist.model_validate(a) for a in globals_ if a]
        parsed = [_Rule.model_validate(r) for r in found]
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        raise _not_rules(path, f"{where}: {first['msg']}") from e
    rules: list[Rule] = []
    left_out: list[str] = []
    for number, rule in enumerate(parsed, 1):
        if not rule.regex.strip():
            left_out.append(f"{rule.id}: no pattern of a secret")
            continue
        try:
            rules.append(_convert(rule, shared))
        except RedactionError as e:
            raise RedactionError(
                f"{path.name}: rule {number} ({rule.id}) does not compile",
                why=e.why,
                fix="correct the rule or take it out of the file; without it nothing is redacted",
            ) from e
        left_out += [
            f"{rule.id}: an allowlist that looks at more than the secret"
            for a in rule.all_allowlists
            if not a.applies
        ]
    left_out += [
        "all rules: an allowlist that looks at more than the secret"
        for a in shared
        if not a.applies
    ]
    return RuleFile(tuple(rules), tuple(left_out))


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > _LARGEST:
            raise _not_rules(path, f"it is larger than {_LARGEST >> 20} MB")
        text = path.read_text("utf-8")
    except OSError as e:
        raise translate_os_error(e, f"reading {path.name}") from e
    except UnicodeDecodeError as e:
        raise _not_rules(path, "it is not UTF-8") from e
    try:
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix == ".json":
            return json.loads(text)
        return yaml.safe_load(text)
    except (ValueError, yaml.YAMLError, RecursionError) as e:
        raise _not_rules(path, str(e).split("\n", 1)[0]) from e


def _not_rules(path: Path, why: str) -> InputError:
    return InputError(
        f"{path.name} is not a file of redaction rules",
        why=why,
        fix="give a gitleaks .toml, or a kingfisher .yml or .json",
    )


def _convert(rule: _Rule, shared: list[_Allowlist]) -> Rule:
    pattern = keep_group(_strip_verbose(rule.regex.strip()), rule.group)
    compile_re2(pattern)
    gate = tuple(f"(?i){re.escape(k)}" for k in dict.fromkeys(rule.keywords) if k.strip())
    make_gate(gate or (pattern,))
    kind = re.sub(r"[^a-z0-9]+", "_", rule.id.lower().removeprefix("kingfisher.")).strip("_")
    allowed = [a for a in (*shared, *rule.all_allowlists) if a.applies]
    return Rule(
        kind[:_LONGEST_KIND] or "secret",
        pattern,
        gate=gate,
        guard=_make_guard(rule.entropy, allowed),
        context=bool(gate),
    )


def _make_guard(entropy: float, allowed: list[_Allowlist]) -> Guard | None:
    if not entropy and not allowed:
        return None
    sources = [r for a in allowed if a.target in ("", "secret") for r in a.regexes]
    patterns = [compile_re2(r) for r in sources]
    stopwords = sorted({w.lower() for a in allowed for w in a.stopwords})

    def screen(value: str) -> bool:
        lower = value.lower()
        return (
            measure_entropy(value) >= entropy
            and not any(w in lower for w in stopwords)
            and not any(p.search(value.encode("utf-8", "surrogatepass")) for p in patterns)
        )

    # The digest of the rules goes by this name.
    told = json.dumps([entropy, sources, stopwords]).encode()
    screen.__qualname__ = f"screen_{hashlib.sha256(told).hexdigest()[:16]}"
    return screen


def _pieces(pattern: str) -> Iterator[tuple[str, bool]]:
    """(piece, whether it stands inside a character class): escapes and single characters."""
    inside = False
    at = 0
    while at < len(pattern):
        size = 2 if pattern[at] == "\\" else 1
        piece = pattern[at : at + size]
        if not inside and piece == "[":
            yield piece, True
            inside = True
            # A bracket that comes first stands for itself.
            lead = re.match(r"\^?\]?", pattern[at + 1 :])
            if lead and lead.group():
                yield lead.group(), True
                at += lead.end()
        elif inside and piece == "[" and pattern.startswith("[:", at):
            end = pattern.find(":]", at)
            size = end + 2 - at if end >= 0 else 1
            yield pattern[at : at + size], True
        elif inside and piece == "]":
            yield piece, True
            inside = False
        else:
            yield piece, inside
        at += size


def keep_group(pattern: str, group: int) -> str:
    """The pattern with ``group`` as its only one (0: as it is; one called TOKEN, if there is one)."""
    out: list[str] = []
    pieces = list(_pieces(pattern))
    named = re.search(r"\(\?P?<TOKEN>", pattern) is not None and group == 0
    seen = 0
    for i, (piece, inside) in enumerate(pieces):
        if inside or piece != "(":
            out.append(piece)
            continue
        rest = "".join(p for p, _ in pieces[i + 1 : i + 64])
        name = re.match(r"\?P?<([A-Za-z_]\w*)>", rest)
        if rest.startswith("?") and name is None:
            out.append(piece)
            continue
        seen += 1
        keep = (name is not None and name[1] == "TOKEN") if named else group in (0, seen)
        out.append("(" if keep else "(?:")
        if name is not None:
            # The name goes: re2 and hyperscan spell it differently.
            for j in range(i + 1, i + 1 + name.end()):
                pieces[j] = ("", False)
    return "".join(out)


def _strip_verbose(pattern: str) -> str:
    """Flag x undone, which re2 does not know: white space and comments outside of classes go."""
    flags = re.match(r"\(\?([a-zA-Z]*x[a-zA-Z]*)\)", pattern)
    if flags is None:
        return pattern
    kept = flags[1].replace("x", "")
    out: list[str] = []
    comment = False
    for piece, inside in _pieces(pattern[flags.end() :]):
        if comment:
            comment = piece != "\n"
        elif not inside and piece == "#":
            comment = True
        elif not inside and piece.isspace():
            continue
        elif piece in ("\\ ", "\\#"):
            out.append(piece[1] if inside or piece == "\\#" else "[ ]")
        else:
            out.append(piece)
    return (f"(?{kept})" if kept else "") + "".join(out)
