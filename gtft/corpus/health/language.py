"""Which language a text is in, by script and by stop words: an estimate, made on a short sample.

No library: scripts are ranges of Unicode, and for the Latin ones the commonest words decide. Code and
very short texts are in none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

SAMPLE = 500
NONE = "code or too short"
_LEAST_HITS = 4
_LEAST_LETTERS = 20

_STOP_WORDS = {
    "English": "the and is of to that this with for are was not you it be have from what there",
    "German": "der die das und ist nicht ein eine mit auf für von zu den dem sich auch wird oder wenn",
    "French": "le la les des et est une pour dans que qui pas sur avec sont plus cette nous vous ne",
    "Spanish": "el los las del y es una por para con que no se su como más pero este esta son",
    "Portuguese": "o os as do da dos das e é um uma por para com não que se como mais foi são",
    "Italian": "il lo gli della di che è un una per con non sono anche come più questo nel alla si",
    "Dutch": "de het een en van niet dat op voor met zijn er aan ook maar als bij wordt deze naar",
    "Polish": "i w na nie się z do jest że to dla jak tak przez oraz ale po są tego jego",
}
_LANGUAGES: dict[str, tuple[str, ...]] = {}
for _language, _words in _STOP_WORDS.items():
    for _word in _words.split():
        _LANGUAGES[_word] = (*_LANGUAGES.get(_word, ()), _language)

# (first, last code point, name); the first that fits counts.
_SCRIPTS = (
    (0x0370, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic script"),
    (0x0590, 0x05FF, "Hebrew"),
    (0x0600, 0x06FF, "Arabic script"),
    (0x0900, 0x097F, "Devanagari script"),
    (0x0E00, 0x0E7F, "Thai"),
    (0x1100, 0x11FF, "Korean"),
    (0x3040, 0x30FF, "Japanese"),
    (0x4E00, 0x9FFF, "Chinese or Japanese"),
    (0xAC00, 0xD7AF, "Korean"),
)


def guess_language(texts: Iterable[str]) -> str:
    """The language of the beginnings of some texts, or `NONE`."""
    hits: Counter[str] = Counter()
    scripts: Counter[str] = Counter()
    letters = 0
    for text in texts:
        sample = text[:SAMPLE]
        if not sample.isascii():
            for char in sample:
                if char > "\u036f":
                    script = _find_script(ord(char))
                    if script:
                        scripts[script] += 1
        letters += len(sample)
        met = Counter(w for w in sample.lower().split() if w in _LANGUAGES)
        for word, n in met.items():
            for language in _LANGUAGES[word]:
                hits[language] += n
    if scripts:
        script, n = min(scripts.items(), key=lambda item: (-item[1], item[0]))
        if n >= _LEAST_LETTERS and n * 10 > letters:
            return "Japanese" if scripts["Japanese"] * 10 > n else script
    best = sorted(hits.items(), key=lambda item: (-item[1], item[0]))
    if not best or best[0][1] < _LEAST_HITS:
        return NONE
    return best[0][0]


def _find_script(point: int) -> str:
    for first, last, name in _SCRIPTS:
        if first <= point <= last:
            return name
    return ""
