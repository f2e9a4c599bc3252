"""The embedded task that needs state: two domains with the same words in opposite order."""

from __future__ import annotations

from collections.abc import Sequence

from spectra_exp.data.dice import Dice
from spectra_exp.data.embedded_grammar import lexicon

# Two domains of the embedded source whose documents come in pairs, one the reversal of the other: no function
# of the current token alone says anything about which of the two it is from.
ROUNDS_PAIR = ("rounds_forward", "rounds_backward")

# A call follows from the one this many calls before it; nearer calls tell nothing about the direction.
ROUNDS_LAG = 3

# The players in the order of the circle.
PLAYERS = lexicon(players="ash bay cob dew elm fig gum hop ivy jet kip log mud nut oak pea")["players"]
_RESTART_CHANCE = 0.1


def reversed_domains(domains: Sequence[str]) -> tuple[int, int] | None:
    """Where the two domains of ROUNDS_PAIR stand among `domains`; None where not both are there."""
    if not set(ROUNDS_PAIR) <= set(domains):
        return None
    return domains.index(ROUNDS_PAIR[0]), domains.index(ROUNDS_PAIR[1])


def rounds_calls(dice: Dice, count: int) -> list[str]:
    """`count` calls in which each is the player after the one three calls before, or now and then anyone.

    The three interleaved chains start uniformly and restart uniformly, so that every single call is uniform
    and calls of different chains are independent. The reversed list has the same law with "the player before"
    in place of "the player after".
    """
    seats: list[int] = []
    for index in range(count):
        restart = index < ROUNDS_LAG or dice.unit() < _RESTART_CHANCE
        seats.append(dice.below(len(PLAYERS)) if restart else (seats[index - ROUNDS_LAG] + 1) % len(PLAYERS))
    return [PLAYERS[seat] for seat in seats]


def rounds_text(calls: list[str]) -> str:
    """The document of these calls; its first and last words are fixed, so that reversing keeps the tokens."""
    return "Round : " + " ".join(calls) + " end"
