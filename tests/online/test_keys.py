"""Entity keys as text: what is joined comes apart again, and a command line takes it."""

import pytest

from headwater.online.entities import parse_entity
from headwater.online.keys import entity_key, entity_text, key_parts


@pytest.mark.parametrize(
    "values", [("85123A", "France"), ("a|b", "c\\"), ("", ""), ("\\|", "|\\"), ("é|🫖", "x"), ("a", "b", "c,d")]
)
def test_a_key_of_several_values_comes_apart_again(values: tuple[str, ...]) -> None:
    assert key_parts(entity_key(values)) == [v.encode() for v in values]


@pytest.mark.parametrize(("values", "names"), [((17850,), ["customer"]), (("85|12", "UK, N"), ["product", "country"])])
def test_a_key_is_written_as_the_command_line_takes_it(values: tuple[object, ...], names: list[str]) -> None:
    dtypes = {n: "int64" if isinstance(v, int) else "string" for n, v in zip(names, values, strict=True)}
    assert tuple(parse_entity(entity_text(entity_key(values), names), dtypes).values()) == values
