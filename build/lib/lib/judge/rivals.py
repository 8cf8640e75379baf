"""The names that answer one kind of question: what else an answer could have been."""

from lib.text import normalise


class Candidates:
    """The names that answer one kind of question, each with the answer it belongs to.

    answers: lists of names, one list for each answer. A name of two answers ("Congo") is a rival of
    none and an alias of none: `ambiguous`. elsewhere: the names that answer other kinds; wider: for
    a name, the names of the places that it lies in, where they are known.
    """

    def __init__(self, answers):
        self.answers = answers
        self.elsewhere: Candidates | None = None
        self.wider: dict[str, set[str]] = {}
        owners: dict[str, set[int]] = {}
        for i, names in enumerate(answers):
            for name in names:
                if normalise(name):
                    owners.setdefault(normalise(name), set()).add(i)
        self.owner = {name: ids for name, ids in owners.items() if len(name) > 1}
        self.ambiguous = frozenset(name for name, ids in owners.items() if len(ids) > 1)
        self.longest = max((len(name.split()) for name in self.owner), default=0)

    def owners(self, names: set[str]) -> set[int]:
        """The answers that bear one of the names, in normal form."""
        return set().union(*(self.owner.get(name, set()) for name in names))

    def named_in(self, text: str, name: str) -> bool:
        """Whether the text holds an answer with this name under any of its names."""
        padded = f" {normalise(text)} "
        names = (other for i in self.owner[name] for other in self.answers[i])
        return any(f" {normalise(other)} " in padded for other in names)

    def mentions(self, text: str) -> list[tuple[int, int, str]]:
        """(first word, past last word, name) of the longest names in the text, left to right."""
        words, found, at = normalise(text).split(), [], 0
        while at < len(words):
            for length in range(min(self.longest, len(words) - at), 0, -1):
                name = " ".join(words[at : at + length])
                if name in self.owner:
                    found.append((at, at + length, name))
                    at += length
                    break
            else:
                at += 1
        return found
