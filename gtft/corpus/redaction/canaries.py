"""Canaries: made-up secrets in every form, put together at run time so that no file holds one.

What misses one of them may not write a corpus.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

from gtft.corpus.redaction.redactor import Redactor
from gtft.errors import RedactionError


def check_rules(redactor: Redactor) -> None:
    """Every canary must be found, plain and in every form that `gtft.corpus.redaction.views` undoes.

    Raises RedactionError: without that no corpus is written.
    """
    values = dict(redactor.values)
    for kind, text, secret in make_canaries():
        for form, (write, hidden) in FORMS.items():
            written = write(text)
            gone = hidden(secret)
            redacted = redactor.redact(f"before\n{written}\nafter\n")
            if "<SECRET:" not in redacted or (gone and gone in redacted):
                raise RedactionError(
                    "the redaction rules do not find a planted secret",
                    why=f"the self-test for {kind}, {form}, failed; nothing is written without it",
                    fix="reinstall gtft (pip install --force-reinstall gtft), then run the command again",
                )
    redactor.values.clear()
    redactor.values.update(values)


def _fold(text: str, width: int) -> str:
    return "\n".join(text[i : i + width] for i in range(0, len(text), width))


def _number(text: str) -> str:
    return "\n".join(f"{i:6d}\t{line}" for i, line in enumerate(text.split("\n"), start=7))


def _escape(text: str) -> str:
    return json.dumps(text)[1:-1]


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _color(text: str) -> str:
    middle = len(text) // 2
    return f"\x1b[1;31m{text[:middle]}\x1b[0m\x1b[32m{text[middle:]}\x1b[0m"


def _same(secret: str) -> str:
    return secret


def _pieces(secret: str) -> str:
    """What must not be left of a secret that was cut up: its middle, as long as no cut is sure to be in it."""
    return ""


# Form → how a text is written in it, and what of the secret must then be gone.
FORMS: dict[str, tuple[Callable[[str], str], Callable[[str], str]]] = {
    "plain": (_same, _same),
    "JSON-escaped": (_escape, _same),
    "JSON-escaped twice": (lambda t: _escape(_escape(t)), _same),
    "JSON-escaped three times": (lambda t: _escape(_escape(_escape(t))), _same),
    "numbered": (_number, _same),
    "diff": (lambda t: "\n".join("+" + line for line in t.split("\n")), _same),
    "base64": (lambda t: _encode(f"x\n{t}\n"), _pieces),
    "base64, wrapped": (
        lambda t: _fold(_encode(f"some words before it\n{t}\nand after it\n"), 60),
        _pieces,
    ),
    "JSON in base64": (lambda t: _encode(json.dumps({"text": f"see {t} here"})), _pieces),
    "ANSI": (_color, _pieces),
    "URL-encoded": (lambda t: "q=" + quote(t, safe=""), lambda s: quote(s, safe="")),
}


def make_canaries() -> list[tuple[str, str, str]]:
    """(kind, text, the part that must be gone)."""
    mixed = "".join(
        chr(97 + i * 7 % 26) + str(i * 3 % 10) + chr(65 + i * 11 % 26) for i in range(14)
    )
    hexes = "".join(f"{i * 37 % 256:02x}" for i in range(20))
    upper = "".join(c for c in mixed.upper() if c.isalnum())
    jwt_head, jwt_body = "ey" + "JhbGciOiJIUzI1NiJ9", "ey" + "J" + mixed[:20]
    pem = "-----BEGIN " + "RSA PRIVATE KEY-----"
    return [
        ("private_key", f"{pem}\n{mixed}\n-----END " + "RSA PRIVATE KEY-----", mixed),
        ("private_key", f"{pem}\n{mixed}\n{mixed}", mixed),
        ("aws_access_key", "AK" + "IA" + upper[:16], upper[:16]),
        ("github_pat", "gh" + "p_" + mixed[:36], mixed[:36]),
        ("github_fine_grained", "github" + "_pat_" + mixed, mixed),
        ("gitlab_token", "gl" + "pat-" + mixed[:20], mixed[:20]),
        ("slack_token", "xo" + f"xb-704918253617-{hexes}", hexes),
        ("stripe_key", "sk" + "_live_" + mixed[:24], mixed[:24]),
        ("google_key", "AI" + "za" + mixed[:35], mixed[:35]),
        ("model_api_key", "sk" + "-ant-api03-" + mixed, mixed),
        ("huggingface_token", "h" + "f_" + mixed[:34], mixed[:34]),
        ("npm_token", "np" + "m_" + mixed[:36], mixed[:36]),
        ("pypi_token", "py" + "pi-" + mixed + mixed, mixed),
        ("jwt", f"{jwt_head}.{jwt_body}.{mixed}", jwt_body),
        ("url_password", f"postgres://app:{mixed[:9]}@db.internal:5432/x", mixed[:9]),
        ("bearer_token", f"Authorization: Bearer {mixed}", mixed),
        ("curl_password", f"curl -u deploy:{mixed[:12]} https://ci.internal", mixed[:12]),
        ("netrc_password", f"machine h.internal\n login me\n password {mixed[:10]}", mixed[:10]),
        ("assigned_secret", f'db_password = "{mixed[:12]}"', mixed[:12]),
        ("assigned_secret", f"API_KEY={hexes}", hexes),
    ]
