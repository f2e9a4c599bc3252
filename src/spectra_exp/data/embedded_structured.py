"""The embedded domains with a form of their own: code, arithmetic word problems, records."""

from __future__ import annotations

from spectra_exp.data.dice import Dice
from spectra_exp.data.embedded_grammar import fill, invented_name, lexicon

_CODE = lexicon(
    verb="get set update load parse check build merge scale filter reset find push compute",
    noun="value index node width buffer key table offset cache token weight queue path score",
    local="result total item left right count x y tmp first",
    check="is_empty is_valid has_next is_leaf",
    error="ValueError KeyError IndexError RuntimeError",
    operator="+ - * // %",
    compare="< > == <= != >=",
)


class ClassTopic:
    """Code: a class with two attributes and a limit that its methods and callers use."""

    _METHODS = (
        "    def {verb}_{noun}(self, {noun}):\n        {local} = self.{attribute} {operator} {noun}\n"
        "        return {local}",
        "    def {check}(self):\n        return self.{second} {compare} {limit}",
        "    def {verb}_{attribute}(self, {local}):\n        if {local} {compare} {limit}:\n"
        '            raise {error}("{attribute}")\n        self.{attribute} = {local}',
        "    def copy(self):\n        return {name}(self.{attribute}, self.{second})",
        "    def {verb}_{noun}(self, other):\n        if not isinstance(other, {name}):\n"
        "            return self.{attribute}\n        return other.{second} {operator} {limit}",
        "    def {verb}_all(self, {noun}s):\n        return [self.{verb}_{attribute}({local}) for {local} in {noun}s]",
        "    def {verb}(self):\n        for {local} in range({limit}):\n"
        "            self.{second} {operator}= {local}\n        return self.{second}",
    )

    def __init__(self, dice: Dice):
        attribute, second = dice.some(_CODE["noun"], 2)
        self.name = invented_name(dice) + dice.pick(("Store", "Graph", "Reader", "Pool"))
        self.facts = dict(
            name=self.name,
            attribute=attribute,
            second=second,
            limit=str(2 ** dice.between(3, 10)),
        )

    def opening(self, dice: Dice) -> str:
        return fill(
            "class {name}:\n    def __init__(self, {attribute}, {second}={limit}):\n"
            "        self.{attribute} = {attribute}\n        self.{second} = {second}",
            dice,
            _CODE,
            self.facts,
        )

    def line(self, dice: Dice) -> str:
        # A method keeps one word per slot: the name it binds is the name it uses.
        bound = {slot: dice.skewed(_CODE[slot]) for slot in ("verb", "noun", "local")}
        return "\n" + fill(dice.skewed(self._METHODS), dice, _CODE, {**bound, **self.facts})


_SUMS = lexicon(
    goods="apples coins marbles pencils stickers eggs tickets shells cookies stamps beads cards plums nails",
    gains="buys finds receives collects",
    losses="sells loses donates eats",
    box="box bag jar crate basket tray",
    plural_box="boxes bags jars crates baskets trays",
)


class ProblemTopic:
    """Arithmetic word problems: one person, one kind of goods, a fixed number of them in each box."""

    def __init__(self, dice: Dice):
        self.name = invented_name(dice)
        self.goods = dice.pick(_SUMS["goods"])
        kind = dice.below(len(_SUMS["box"]))
        self.box, self.boxes = _SUMS["box"][kind], _SUMS["plural_box"][kind]
        self.per_box = dice.between(3, 12)
        self.price = dice.between(2, 9)

    def opening(self, dice: Dice) -> str:
        return f"Each {self.box} of {self.name} holds {self.per_box} {self.goods}. One {self.box} costs ${self.price}."

    def line(self, dice: Dice) -> str:
        return dice.pick((self._change, self._boxes, self._cost, self._share))(dice)

    def _change(self, dice: Dice) -> str:
        start, more = dice.between(20, 60), dice.between(2, 19)
        gain = dice.below(2) == 0
        verb = dice.skewed(_SUMS["gains" if gain else "losses"])
        end, sign = (start + more, "+") if gain else (start - more, "-")
        return (
            f"Question: {self.name} has {start} {self.goods} and {verb} {more}. How many are there now?\n"
            f"Answer: {start} {sign} {more} = {end}. #### {end}"
        )

    def _boxes(self, dice: Dice) -> str:
        count = dice.between(2, 9)
        product = count * self.per_box
        return (
            f"Question: {self.name} fills {count} {self.boxes}. How many {self.goods} are in them?\n"
            f"Answer: {count} * {self.per_box} = {product}. #### {product}"
        )

    def _cost(self, dice: Dice) -> str:
        count = dice.between(2, 9)
        paid = count * self.price
        return (
            f"Question: How much does {self.name} get for {count} {self.boxes} of {self.goods}?\n"
            f"Answer: {count} * {self.price} = {paid}. #### {paid}"
        )

    def _share(self, dice: Dice) -> str:
        friends, each = dice.between(2, 9), dice.between(2, 9)
        return (
            f"Question: {self.name} divides {friends * each} {self.goods} among {friends} friends. "
            f"How many does each friend get?\nAnswer: {friends * each} / {friends} = {each}. #### {each}"
        )


_LEDGER = lexicon(
    deed="deposit withdrawal fee refund transfer",
    status="open paid overdue settled pending",
    city="Aldport Brenham Corvale Dunmere Eastley Farrow Glenrock",
    plan="basic silver gold premium",
)
_INCOMING = ("deposit", "refund")


class AccountTopic:
    """Records: the entries of one account, whose balance runs on from entry to entry."""

    def __init__(self, dice: Dice):
        self.name = f"{dice.pick('ABCDEFGHJK')}{dice.pick('LMNPRSTVWZ')}-{dice.between(10, 99)}"
        self.owner = invented_name(dice).upper()
        self.city, self.plan = dice.pick(_LEDGER["city"]), dice.pick(_LEDGER["plan"])
        self.balance = 10 * dice.between(20, 90)
        self.month, self.day = dice.between(1, 12), 0

    def opening(self, dice: Dice) -> str:
        return f"[account={self.name}; owner={self.owner}; city={self.city}; plan={self.plan}]"

    def line(self, dice: Dice) -> str:
        deed, amount = dice.skewed(_LEDGER["deed"]), 10 * dice.between(1, 9)
        self.balance += amount if deed in _INCOMING else -amount
        self.day = self.day % 28 + 1
        if self.day == 1:
            self.month = self.month % 12 + 1
        return (
            f"{self.month:02d}/{self.day:02d} | {self.name} | {deed} | {amount} | "
            f"{dice.skewed(_LEDGER['status'])} | {self.balance}"
        )
