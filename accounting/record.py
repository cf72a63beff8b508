"""`@record`: a dataclass that is never changed after it was made, by the type checker's word and at the price of a plain one.

A frozen dataclass enforces that at run time, and takes five times as long to make; a call makes a dozen. What every call makes is
given its fields by position: by name that takes three times as long. What a stranger would get wrong: a record has no hash, so
what is to be a key of a dict stays a frozen dataclass.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: type[_T]) -> type[_T]:
    """Make a dataclass with slots, whose fields nobody may assign to."""
    return dataclass(slots=True)(cls)
