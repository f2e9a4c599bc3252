"""The embedded source: documents written by the package, deterministic, of any length.

Seven domains that differ in vocabulary and structure. Two of them (`ROUNDS_PAIR`) can be told apart only with
state. A long document has several topics and returns to each after thousands of words with the same facts.
*Source:* ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spectra_exp.data.dice import Dice
from spectra_exp.data.documents import Document, Splits, digest
from spectra_exp.data.embedded_grammar import Topic, count_words
from spectra_exp.data.embedded_prose import ConversationTopic, PlaceTopic
from spectra_exp.data.embedded_rounds import ROUNDS_PAIR, rounds_calls, rounds_text
from spectra_exp.data.embedded_structured import AccountTopic, ClassTopic, ProblemTopic
from spectra_exp.data.schema import DataConfig, register_source
from spectra_exp.foundations.bounds import LARGEST_SEED, MOST_WORDS, MOST_WORDS_OF_A_DOCUMENT
from spectra_exp.foundations.errors import ConfigError
from spectra_exp.foundations.options import option

# Raise when any generated text changes: it is part of every fingerprint. A test pins a digest of the texts.
GENERATOR_VERSION = 1

# A section stays on one topic this long; a document has one topic for each so many words, up to the limit.
SECTION_WORDS = 250
WORDS_PER_TOPIC = 500
MOST_TOPICS = 16

_WORDS = "words, punctuation marks and line breaks"


@dataclass(frozen=True)
class _TopicDomain:
    topic: Callable[[Dice], Topic]
    between_lines: str
    between_sections: str


_TOPIC_DOMAINS = {
    "code": _TopicDomain(ClassTopic, "\n", "\n\n\n"),
    "arithmetic": _TopicDomain(ProblemTopic, "\n", "\n\n"),
    "dialogue": _TopicDomain(ConversationTopic, "\n", "\n\n"),
    "prose": _TopicDomain(PlaceTopic, " ", "\n\n"),
    "records": _TopicDomain(AccountTopic, "\n", "\n"),
}
EMBEDDED_DOMAINS = (*_TOPIC_DOMAINS, *ROUNDS_PAIR)


@register_source
@dataclass
class EmbeddedData(DataConfig):
    """Documents written by the package itself, the same on every machine."""

    name: str = option("embedded", "where the documents come from", choices=("embedded",))
    train_words: int = option(
        650_000, "size of the training split over all domains", unit=_WORDS, minimum=1, maximum=MOST_WORDS
    )
    validation_words: int = option(
        42_000, "size of the validation split over all domains", unit=_WORDS, minimum=1, maximum=MOST_WORDS
    )
    document_words: int = option(
        120,
        "mean length of a document; each is 0.5 to 1.5 times as long",
        unit=_WORDS,
        minimum=20,
        maximum=MOST_WORDS_OF_A_DOCUMENT,
    )
    generator_seed: int = option(
        0, "another seed writes other documents of the same kind", minimum=0, maximum=LARGEST_SEED
    )

    def check(self) -> None:
        """Raise ConfigError for a domain to hold out that the package does not write."""
        if self.hold_out_domain is not None and self.hold_out_domain not in EMBEDDED_DOMAINS:
            raise ConfigError.unknown("data.hold_out_domain", self.hold_out_domain, EMBEDDED_DOMAINS)

    def content_digest(self) -> str:
        """The hash of what determines the documents."""
        return digest(
            "embedded",
            GENERATOR_VERSION,
            self.train_words,
            self.validation_words,
            self.document_words,
            self.generator_seed,
        )

    def read_splits(self) -> Splits:
        """Both splits, each with about the same number of words in every domain.

        A document depends on the seed, its split, domain and number only (the last of a domain is cut to what is
        left of the domain's share): a larger corpus begins with the documents of a smaller one.
        """
        return Splits(
            train=_split(self, "train", self.train_words),
            validation=_split(self, "validation", self.validation_words),
        )


def _split(config: EmbeddedData, split: str, words: int) -> list[Document]:
    share = max(1, words // len(EMBEDDED_DOMAINS))
    documents = []
    for name, domain in _TOPIC_DOMAINS.items():
        for key, length in _lengths(config, split, name, share):
            text = write_document(domain, Dice(GENERATOR_VERSION, *key, "text"), length)
            documents.append(Document(text, name, "/".join(key)))
    for key, length in _lengths(config, split, "rounds", share):
        calls = rounds_calls(Dice(GENERATOR_VERSION, *key, "text"), length)
        for name, ordered in zip(ROUNDS_PAIR, (calls, calls[::-1]), strict=True):
            documents.append(Document(rounds_text(ordered), name, "/".join((*key, name))))
    return documents


def _lengths(config: EmbeddedData, split: str, name: str, share: int) -> list[tuple[tuple[str, ...], int]]:
    """Key and length in words of each document of a domain; the lengths add up to the domain's share.

    The first document has its full length even where the share is smaller, so long documents stay long.
    """
    planned: list[tuple[tuple[str, ...], int]] = []
    left, shortest = share, max(1, config.document_words // 2)
    while left >= shortest or not planned:
        key = (str(config.generator_seed), split, name, str(len(planned)))
        length = Dice(GENERATOR_VERSION, *key, "length").between(shortest, 3 * config.document_words // 2)
        planned.append((key, min(length, left) if planned else length))
        left -= length
    return planned


def write_document(domain: _TopicDomain, dice: Dice, words: int) -> str:
    """A text of `words` words (or up to one line more) that takes its topics in turn, section by section."""
    topics = _topics(domain, dice, min(MOST_TOPICS, max(1, words // WORDS_PER_TOPIC)))
    sections: list[str] = []
    written = 0
    while written < words:
        topic = topics[len(sections) % len(topics)]
        lines = [topic.opening(dice)]
        length = count_words(lines[0])
        while length < min(SECTION_WORDS, words - written):
            lines.append(topic.line(dice))
            length += count_words(domain.between_lines + lines[-1])
        sections.append(domain.between_lines.join(lines))
        written += length + count_words(domain.between_sections)
    return domain.between_sections.join(sections)


def _topics(domain: _TopicDomain, dice: Dice, count: int) -> list[Topic]:
    """`count` topics of different names, so that no two tell different facts of one name."""
    topics: dict[str, Topic] = {}
    while len(topics) < count:
        topic = domain.topic(dice)
        topics.setdefault(topic.name, topic)
    return list(topics.values())
