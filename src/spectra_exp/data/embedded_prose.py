"""The embedded domains that read as sentences: descriptive prose and dialogue."""

from __future__ import annotations

from spectra_exp.data.dice import Dice
from spectra_exp.data.embedded_grammar import fill, invented_name, lexicon

_SCENERY = lexicon(
    adjective="old quiet narrow pale broad silver deep crooked warm distant heavy soft ancient bright hollow "
    "gentle wild grey steep mossy empty golden cold shallow tangled faded smooth bitter green restless",
    noun="valley river hill forest meadow tower bridge harbour orchard mill chapel road shore garden cliff "
    "marsh field stream wall lantern roof gate ruin island cave well terrace pasture ridge quay",
    weather="rain mist wind snow sunlight thunder frost dusk haze moonlight",
    verb="covers follows shades crosses guards surrounds hides touches divides overlooks softens frames",
    moves="drifts settles rises fades gathers wanders lingers falls spreads returns",
    colour="red blue amber white violet ochre black green rose copper",
    season="spring summer autumn winter harvest midwinter",
    people="shepherds fishermen weavers pilgrims children masons farmers millers sailors carpenters",
    craft="pottery glass rope cheese bells paper wool salt honey boats knives candles",
    bird="herons swallows crows owls geese larks gulls finches",
    manner="slowly softly again early late silently together always",
)


class PlaceTopic:
    """Descriptive prose: a town with its river, craft, colour and neighbour."""

    _OPENINGS = (
        "The town of {town} lies beside the river {river}.",
        "In {town}, where the river {river} bends, the roofs are {town_colour}.",
        "Beyond the {adjective} {noun} stands {town}, known for its {town_craft}.",
    )
    _LINES = (
        "One {adjective} {noun} {verb} the {adjective} {noun}.",
        "In {season} the {weather} {moves} {manner} over the {noun}.",
        "The {people} of {town} make {town_craft} and sell it in {neighbour}.",
        "Every {season} the {town_bird} come back to the river {river}.",
        "Near the {noun} the {weather} {moves}, and the {adjective} {noun} {verb} the {noun}.",
        "Its {town_colour} roofs shine above the {adjective} {noun}.",
        "The road from {town} to {neighbour} {verb} every {adjective} {noun}.",
        "There the {people} rest {manner} while the {weather} {moves}.",
        "No {noun} is as {adjective} as the one that {verb} the river {river}.",
    )

    def __init__(self, dice: Dice):
        self.name = invented_name(dice) + dice.pick(("ford", "wick", "holm", "stead"))
        self.facts = dict(
            town=self.name,
            river=invented_name(dice),
            neighbour=invented_name(dice) + dice.pick(("bury", "gate", "combe")),
            town_craft=dice.pick(_SCENERY["craft"]),
            town_colour=dice.pick(_SCENERY["colour"]),
            town_bird=dice.pick(_SCENERY["bird"]),
        )

    def opening(self, dice: Dice) -> str:
        return fill(dice.pick(self._OPENINGS), dice, _SCENERY, self.facts)

    def line(self, dice: Dice) -> str:
        return fill(dice.skewed(self._LINES), dice, _SCENERY, self.facts)


_TALK = lexicon(
    feeling="happy tired worried sure sorry glad curious angry hungry late ready surprised",
    thing="ticket umbrella letter phone coat guitar camera wallet cake suitcase bicycle kettle jacket",
    place="station kitchen office library cafe garage airport theatre pharmacy gym cellar balcony",
    day="Monday Tuesday Friday Saturday Sunday Thursday Wednesday",
    act="call wait leave ask try go sleep cook practise pay apologise drive",
    hour="two three four five six seven eight nine ten",
    relative="sister cousin uncle neighbour boss teacher dentist brother aunt",
    filler="well honestly actually anyway oh hmm listen maybe",
)


class ConversationTopic:
    """Dialogue: two speakers in turn, a lost thing, where it is, when they meet."""

    _QUESTIONS = (
        ("Where did you leave the {item}?", "I left it at the {spot}, next to the {thing}."),
        ("When do we meet?", "On {meeting_day} at {meeting_hour}, as we said."),
        ("Who took the {item}?", "My {owner} did, I think."),
        ("Are you {feeling}?", "No, I'm just {feeling}, don't worry."),
        ("Can you {act} before {hour}?", "I can't, but I'll {act} on {day}."),
        ("Did you see my {thing}?", "Yes, your {relative} has it at the {place}."),
        ("Shall we {act}?", "{filler}, I'd rather {act}."),
        ("What's wrong?", "I forgot the {item} again, it's still at the {spot}!"),
        ("Should I bring the {thing}?", "Bring two, my {relative} wants one."),
    )

    def __init__(self, dice: Dice):
        speakers = dice.some(sorted({invented_name(dice) for _ in range(6)}), 2)
        self.facts = dict(
            item=dice.pick(_TALK["thing"]),
            spot=dice.pick(_TALK["place"]),
            meeting_day=dice.pick(_TALK["day"]),
            meeting_hour=dice.pick(_TALK["hour"]),
            owner=dice.pick(_TALK["relative"]),
        )
        self.first, self.second = speakers
        self.name = f"{self.first} and {self.second}"

    def opening(self, dice: Dice) -> str:
        return f"{self.first}: Hi {self.second}, it's about the {self.facts['item']}."

    def line(self, dice: Dice) -> str:
        asker, other = (self.first, self.second) if dice.below(2) else (self.second, self.first)
        question, answer = (fill(part, dice, _TALK, self.facts) for part in dice.skewed(self._QUESTIONS))
        return f"{asker}: {question}\n{other}: {answer[0].upper()}{answer[1:]}"
