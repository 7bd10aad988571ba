"""Clusters: what is tied together, directly or over others."""

from __future__ import annotations


class Union:
    """Connected components of numbers (union-find with path halving)."""

    def __init__(self, count: int = 0) -> None:
        self._parent = list(range(count))

    def __len__(self) -> int:
        return len(self._parent)

    def add(self) -> int:
        """One more number, on its own."""
        self._parent.append(len(self._parent))
        return len(self._parent) - 1

    def find(self, n: int) -> int:
        parent = self._parent
        while parent[n] != n:
            parent[n] = parent[parent[n]]
            n = parent[n]
        return n

    def join(self, a: int, b: int) -> None:
        """Afterwards ``find(a)`` stands for both."""
        self._parent[self.find(b)] = self.find(a)


class Groups:
    """Connected components of cluster keys; a group is called by its smallest key."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._name: list[str] = []
        self._union = Union()

    def find(self, key: str) -> str:
        """The group's name; a key not yet seen is a group of its own."""
        return self._name[self._union.find(self._add(key))]

    def join(self, a: str, b: str) -> None:
        x, y = self._union.find(self._add(a)), self._union.find(self._add(b))
        if x != y:
            self._name[x] = min(self._name[x], self._name[y])
            self._union.join(x, y)

    def _add(self, key: str) -> int:
        n = self._number.setdefault(key, len(self._name))
        if n == len(self._name):
            self._name.append(key)
            self._union.add()
        return n
