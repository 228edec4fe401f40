"""Our own syntax tree of `where` and `derive`: what is typed, hashed, stored in plans and compiled.

It is never sqlglot's tree or text, so that another version of sqlglot cannot change a
view's state hash. Three kinds of nodes say everything the subset has.
"""

from __future__ import annotations

from typing import Union

import msgspec

from headwater.dtypes import Dtype


class Ref(msgspec.Struct, frozen=True, tag="ref", tag_field="node"):
    """A column of the source, or one derived before."""

    name: str
    dtype: Dtype


class Literal(msgspec.Struct, frozen=True, tag="literal", tag_field="node"):
    """A constant; `value` is None for NULL. Doubles are kept as their repr, so that hashing is exact."""

    value: int | bool | str | None
    dtype: Dtype


class Call(msgspec.Struct, frozen=True, tag="call", tag_field="node"):
    """An operator or function of the subset, by the name that `expressions/subset.py` documents."""

    op: str
    args: tuple[Expr, ...]
    dtype: Dtype


Expr = Union[Ref, Literal, Call]  # noqa: UP007  (msgspec resolves the recursive name at run time)
