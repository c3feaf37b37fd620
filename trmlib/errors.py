"""The one error a user is meant to read: a single line that says what, where and what to do."""

import math
from dataclasses import fields

KINDS = {  # name of the type of a config's field → what its values must be
    "bool": (lambda v: isinstance(v, bool), "True or False"),
    "int": (lambda v: isinstance(v, int) and not isinstance(v, bool), "a whole number"),
    "float": (lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v), "a number"),
    "str": (lambda v: isinstance(v, str), "a name"),
    "tuple": (lambda v: isinstance(v, tuple), "a tuple"),
}
RANGES = {
    "≥ 0": lambda v: v >= 0,
    "≥ 1": lambda v: v >= 1,
    "≥ 2": lambda v: v >= 2,
    "> 0": lambda v: v > 0,
    "from 0 to 1": lambda v: 0 <= v <= 1,
    "from 0 to below 1": lambda v: 0 <= v < 1,
    "from 0 to below 0.999": lambda v: 0 <= v < 0.999,
}


class TrmError(Exception):
    """Bad input or a broken file; the command line prints it as one line and exits with `code`."""

    def __init__(self, message, code=2):
        super().__init__(message)
        self.code = code


def check(config, **allowed):
    """Refuse a config (a dataclass) with a field that is not of its declared type, or not what is `allowed`: one of RANGES, or names to choose from."""
    for field in fields(config):
        value, range_ = getattr(config, field.name), allowed.get(field.name)
        what = f"{type(config).__name__}: {field.name}={value!r}"
        if isinstance(range_, tuple):
            if value not in range_:
                raise TrmError(f"{what} is unknown; choose one of {', '.join(range_)}")
        elif (name := getattr(field.type, "__name__", field.type)) in KINDS:  # the type itself, or its name where annotations are postponed
            right, kind = KINDS[name]
            if not right(value) or range_ and not RANGES[range_](value):
                raise TrmError(f"{what} must be {kind} {range_ or ''}".rstrip())
