r"""Constants, computed exactly: \sqrt{20} is 2\sqrt5, and \frac{1}{\sqrt2} is \frac{\sqrt2}{2}.

    constant(tokenize(r"\frac{1}{\sqrt2}")) == constant(tokenize(r"\frac{\sqrt2}{2}"))    -> True
    constant(tokenize("2^{10}"))                                                          -> 1024
    constant(tokenize("9 + 9"))      -> None: whoever leaves the sum open has not answered

A constant is a sum of products of a fraction, roots, and powers of \pi, e and i. Of numbers it is
read when it holds a root, a power, a factorial or a binomial; what +, -, * and / make of plain
numbers is read by `computed`. Such a sum has one spelling only: a product of roots is a product of
primes to powers between 0 and 1, and these are independent over the fractions. So two constants
are equal exactly if their sums are the same, and no tolerance is needed.

Every bound below is small, so that no text takes long. What exceeds one has no value here.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import comb, e, factorial, floor, pi

from data.latex_tokens import MAX_DIGITS

MAX_TOKENS = 120
MAX_DEPTH = 8  # of brackets and arguments
MAX_VALUE = 10**60  # numerators and denominators stay below
MAX_TERMS = 16  # of a sum
MAX_POWER = 300  # of one product
MAX_POWER_OF_SUM = 8
MAX_ROOT = 12  # the 3 of \sqrt[3]{2}
MAX_RADICAND = 10**8  # it is factored by trial
MAX_FACTORIAL = 40
MAX_CHOICE = 150  # the n of \binom{n}{k}
SYMBOLS = ("\\pi", "e", "i")
TIMES = ("*", "\\cdot", "\\times")
OVER = ("/", "\\div")
NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+")

# A product without its fraction: ((2, Fraction(1, 2)), ("\\pi", Fraction(2))) is \sqrt2\pi^2. The
# power of a prime lies between 0 and 1, that of i is 1.
Product = tuple[tuple[int | str, Fraction], ...]
Sum = dict[Product, Fraction]  # no fraction in it is 0
Value = Fraction | tuple  # a fraction, or the sorted items of a Sum that is none
ONE: Product = ()


class NotExact(Exception):
    """Raised inside of this file: the tokens are no constant, or it exceeds a bound."""


def constant(tokens: list[str]) -> Value | None:
    """The value of a constant; None for plain numbers, for sums of them, and for all else."""
    reader = Reader(tokens)
    try:
        value = as_value(reader.whole())
    except NotExact:
        return None
    if isinstance(value, Fraction) and not reader.is_more_than_arithmetic:
        return None
    return value


def computed(tokens: list[str]) -> Value | None:
    """The value of a constant or of a computation with numbers: 18 for the tokens of 9 + 9."""
    try:
        return as_value(Reader(tokens).whole())
    except NotExact:
        return None


def as_value(total: Sum) -> Value:
    if not total:
        return Fraction(0)
    if list(total) == [ONE]:
        return total[ONE]
    return tuple(sorted(total.items(), key=repr))


def as_sum(value: Value) -> Sum:
    if isinstance(value, Fraction):
        return {ONE: value} if value else {}
    return dict(value)


# --- arithmetic -----------------------------------------------------------------------------------


def plus(a: Sum, b: Sum) -> Sum:
    total = dict(a)
    for product, number in b.items():
        total[product] = bounded(total.get(product, Fraction(0)) + number)
        if not total[product]:
            del total[product]
    if len(total) > MAX_TERMS:
        raise NotExact
    return total


def minus(a: Sum) -> Sum:
    return {product: -number for product, number in a.items()}


def times(a: Sum, b: Sum) -> Sum:
    total: Sum = {}
    for product, number in a.items():
        for other, factor in b.items():
            merged, extra = multiply(product, other)
            total = plus(total, {merged: bounded(number * factor * extra)})
    return total


def bounded(number: Fraction) -> Fraction:
    if abs(number.numerator) >= MAX_VALUE or number.denominator >= MAX_VALUE:
        raise NotExact
    return number


def multiply(a: Product, b: Product) -> tuple[Product, Fraction]:
    r"""The product of two products, and the fraction that comes out: \sqrt2\sqrt6 is 2\sqrt3."""
    powers = dict(a)
    for base, power in b:
        powers[base] = powers.get(base, Fraction(0)) + power
    return reduced(powers)


def reduced(powers: dict[int | str, Fraction]) -> tuple[Product, Fraction]:
    """The powers brought into a Product's bounds, and the fraction that comes out."""
    kept = []
    number = Fraction(1)
    for base, power in powers.items():
        if base == "i":
            if power.denominator != 1:
                raise NotExact
            number *= -1 if power % 4 >= 2 else 1
            power %= 2
        elif isinstance(base, int):
            whole = floor(power)
            number *= integer_power(Fraction(base), whole)
            power -= whole
        if power:
            kept.append((base, power))
    return tuple(sorted(kept, key=repr)), bounded(number)


def integer_power(base: Fraction, power: int) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    too_large = abs(power) > MAX_POWER or (size - 1) * abs(power) > MAX_VALUE.bit_length()
    if too_large or (base == 0 and power <= 0):
        raise NotExact
    return bounded(base**power)


def inverse(a: Sum) -> Sum:
    """1/a: a sum of square roots is made a fraction by conjugates, as in 1/(2 + √3) = 2 - √3."""
    over: Sum = {ONE: Fraction(1)}
    for _ in range(MAX_TERMS):
        if len(a) == 1:
            return times(over, inverse_of_product(a))
        conjugate = conjugate_of(a)
        over = times(over, conjugate)
        a = times(a, conjugate)
    raise NotExact


def inverse_of_product(a: Sum) -> Sum:
    ((product, number),) = a.items()
    powers = {base: -power for base, power in product}
    inverted, extra = reduced(powers)
    return {inverted: bounded(extra / number)}


def conjugate_of(a: Sum) -> Sum:
    """The sum with the sign changed of all terms that hold one of its square roots, or i."""
    if not a:
        raise NotExact  # it is 0
    bases = {}
    for product in a:
        bases.update(product)
    for base, power in sorted(bases.items(), key=repr):
        if base == "i" or power == Fraction(1, 2) and isinstance(base, int):
            conjugate = {}
            for product, number in a.items():
                conjugate[product] = -number if (base, power) in product else number
            return conjugate
    raise NotExact


def power_of(a: Sum, b: Sum) -> Sum:
    """a^b for a whole b, and for a fraction b if a is one product."""
    power = as_value(b)
    if not isinstance(power, Fraction):
        raise NotExact
    if power.denominator != 1:
        if as_value(a) != 0 and any(number < 0 for number in a.values()):
            raise NotExact  # (-8)^{1/3} means different things to different people
        root = root_of(a, power.denominator)
        return power_of(root, {ONE: Fraction(power.numerator)})
    if len(a) <= 1:
        return power_of_product(a, int(power))
    if abs(power) > MAX_POWER_OF_SUM:
        raise NotExact
    total: Sum = {ONE: Fraction(1)}
    for _ in range(abs(int(power))):
        total = times(total, a)
    return inverse(total) if power < 0 else total


def power_of_product(a: Sum, power: int) -> Sum:
    if not a:
        return as_sum(integer_power(Fraction(0), power))
    ((product, number),) = a.items()
    if abs(power) > MAX_POWER:
        raise NotExact
    powers = {base: exponent * power for base, exponent in product}
    raised, extra = reduced(powers)
    return {raised: bounded(integer_power(number, power) * extra)}


def root_of(a: Sum, n: int) -> Sum:
    r"""The n-th root of one product. \sqrt{-3} is \sqrt3i, \sqrt[3]{-8} is -2."""
    if not 2 <= n <= MAX_ROOT:
        raise NotExact
    if not a:
        return {}
    if len(a) > 1:
        raise NotExact
    ((product, number),) = a.items()
    powers: dict[int | str, Fraction] = {}
    for base, power in product:
        if base == "i":
            raise NotExact
        powers[base] = power / n
    for prime, power in factors(abs(number.numerator)):
        powers[prime] = powers.get(prime, Fraction(0)) + Fraction(power, n)
    for prime, power in factors(number.denominator):
        powers[prime] = powers.get(prime, Fraction(0)) - Fraction(power, n)
    sign = 1
    if number < 0 and n % 2:
        sign = -1
    elif number < 0 and n == 2:
        powers["i"] = Fraction(1)
    elif number < 0:
        raise NotExact
    root, extra = reduced(powers)
    return {root: bounded(sign * extra)}


@lru_cache(maxsize=1024)
def factors(n: int) -> tuple[tuple[int, int], ...]:
    """The primes of n with their powers: factors(12) == ((2, 2), (3, 1))."""
    if n > MAX_RADICAND:
        raise NotExact
    found = []
    prime = 2
    while prime * prime <= n:
        power = 0
        while n % prime == 0:
            n //= prime
            power += 1
        if power:
            found.append((prime, power))
        prime += 1 if prime == 2 else 2
    if n > 1:
        found.append((n, 1))
    return tuple(found)


# --- reading --------------------------------------------------------------------------------------


def as_float(value: tuple) -> float | None:
    """The size of a constant that is no fraction; None if it holds an i, or is too large."""
    known = {"\\pi": pi, "e": e}
    total = 0.0
    try:
        for product, fraction in value:
            term = float(fraction)
            for base, power in product:
                term *= known.get(base, base) ** float(power)
            total += term
    except (TypeError, OverflowError):  # "i" has no size
        return None
    return total


class Reader:
    """Reads tokens from the left: a sum of products of factors. What is ambiguous is NotExact."""

    def __init__(self, tokens: list[str]):
        self.tokens = tokens
        self.place = 0
        self.depth = 0
        self.is_more_than_arithmetic = False  # a root, a power, a factorial, a binomial was seen

    def whole(self) -> Sum:
        if len(self.tokens) > MAX_TOKENS:
            raise NotExact
        total = self.sum()
        if self.next() is not None:
            raise NotExact
        return total

    def next(self) -> str | None:
        return self.tokens[self.place] if self.place < len(self.tokens) else None

    def take(self, *expected: str) -> str:
        token = self.next()
        if token is None or (expected and token not in expected):
            raise NotExact
        self.place += 1
        return token

    def sum(self) -> Sum:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotExact
        total: Sum = {}
        sign = self.take() if self.next() in ("+", "-") else "+"
        while True:
            product = self.product()
            total = plus(total, minus(product) if sign == "-" else product)
            if self.next() not in ("+", "-"):
                self.depth -= 1
                return total
            sign = self.take()

    def product(self) -> Sum:
        r"""Factors with or without a times between. 2 3 and 2\frac12 are refused, as is 1/2\pi."""
        total = self.factor()
        divided = False
        while True:
            token = self.next()
            if token in TIMES:
                self.take()
                total = times(total, self.factor())
            elif token in OVER:
                if divided:
                    raise NotExact
                divided = True
                self.take()
                total = times(total, inverse(self.factor()))
            elif token is None or token in ("+", "-", ")", "}", "]"):
                return total
            elif divided or is_number(token) or self.may_be_mixed():
                raise NotExact
            else:
                total = times(total, self.factor())

    def may_be_mixed(self) -> bool:
        r"""Does a fraction follow right behind a number, as in 2\frac12?"""
        return self.next() == "\\frac" and is_number(self.tokens[self.place - 1])

    def factor(self) -> Sum:
        start = self.place
        base = self.base()
        token = self.next()
        if token == "!":
            self.take()
            is_clear = is_number(self.tokens[start]) or self.tokens[start] == "("
            if self.next() == "!" or not is_clear:
                raise NotExact
            return self.changed(base, factorial_of(base))
        if token == "^":
            self.take()
            raised = power_of(base, self.argument())
            if self.next() in ("^", "!"):
                raise NotExact
            return self.changed(base, raised)
        return base

    def changed(self, before: Sum, after: Sum) -> Sum:
        """`after`, unless it is a plain number that nothing was done to, such as 1^2 or 2!."""
        if before == after and isinstance(as_value(before), Fraction):
            raise NotExact
        self.is_more_than_arithmetic = True
        return after

    def base(self) -> Sum:
        token = self.take()
        if is_number(token):
            if len(token) > MAX_DIGITS:
                raise NotExact
            return as_sum(bounded(Fraction(token)))
        if token in SYMBOLS:
            return {((token, Fraction(1)),): Fraction(1)}
        if token == "(":
            total = self.sum()
            self.take(")")
            return total
        if token == "\\sqrt":
            n = self.index()
            radicand = self.argument()
            return self.changed(radicand, root_of(radicand, n))
        if token == "\\frac":
            over = self.argument()
            return times(over, inverse(self.argument()))
        if token == "\\binom":
            n = self.argument()
            self.is_more_than_arithmetic = True
            return binomial(n, self.argument())
        raise NotExact

    def argument(self) -> Sum:
        self.take("{")
        total = self.sum()
        self.take("}")
        return total

    def index(self) -> int:
        r"""The 3 of \sqrt[3]{2}; 2 if there is none."""
        if self.next() != "[":
            return 2
        self.take()
        n = self.take()
        self.take("]")
        if not n.isascii() or not n.isdigit() or len(n) > 2:
            raise NotExact
        return int(n)


def is_number(token: str) -> bool:
    return bool(NUMBER.fullmatch(token))


def whole_number(a: Sum, most: int) -> int:
    value = as_value(a)
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= most:
        raise NotExact
    return int(value)


def factorial_of(a: Sum) -> Sum:
    return as_sum(Fraction(factorial(whole_number(a, MAX_FACTORIAL))))


def binomial(n: Sum, k: Sum) -> Sum:
    choices = comb(whole_number(n, MAX_CHOICE), whole_number(k, MAX_CHOICE))
    return as_sum(bounded(Fraction(choices)))
