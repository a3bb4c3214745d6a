"""A child sees what is allowed and what was asked for by name, never the whole of our environment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentkeel.adapters.providers._wire.environment import ALLOWED, allowed_environment, dangerous
from agentkeel.errors import ValidationError

names = st.one_of(
    st.sampled_from(
        [*sorted(ALLOWED), "LC_ALL", "LD_PRELOAD", "PYTHONPATH", "GIT_DIR", "ANTHROPIC_API_KEY", "NODE_OPTIONS"]
    ),
    st.text("ABC_", min_size=1, max_size=6),
)


def test_ordinary_variables_pass_and_secrets_do_not() -> None:
    base = {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "s", "SSH_AUTH_SOCK": "/s"}
    assert allowed_environment(base) == {"PATH": "/bin", "HOME": "/h", "LC_ALL": "C"}


def test_a_named_key_passes_and_the_home_can_be_another() -> None:
    base = {"HOME": "/h", "ANTHROPIC_API_KEY": "k"}
    child = allowed_environment(base, names=["ANTHROPIC_API_KEY", "ABSENT"], home="/other")
    assert child == {"HOME": "/other", "ANTHROPIC_API_KEY": "k"}


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_BASE_URL", "NODE_OPTIONS", "LD_PRELOAD", "PYTHONPATH", "GIT_DIR", "GIT_SSH_COMMAND", "BASH_ENV"]
)
def test_a_dangerous_variable_is_stripped_even_when_named_and_set_only_by_value(name: str) -> None:
    assert dangerous(name)
    assert allowed_environment({name: "theirs"}, names=[name]) == {}
    assert allowed_environment({name: "theirs"}, extra={name: "ours"}) == {name: "ours"}


@pytest.mark.parametrize("extra", [{"": "x"}, {"A=B": "x"}, {"A\x00": "x"}, {"A": "x\x00"}])
def test_what_cannot_be_a_variable_is_refused_by_name(extra: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as caught:
        allowed_environment({}, extra=extra)
    assert caught.value.code == "invalid_input"


@given(st.dictionaries(names, st.text(max_size=3)), st.sets(names), st.dictionaries(names, st.just("x")))
def test_every_variable_has_a_reason_and_what_was_given_wins(
    base: dict[str, str], wanted: set[str], extra: dict[str, str]
) -> None:
    before = dict(base)
    child = allowed_environment(base, names=wanted, extra=extra)
    assert base == before
    assert extra.items() <= child.items()
    for name in child.keys() - extra.keys():
        assert child[name] == base[name]
        assert name in ALLOWED or name in wanted or name.startswith("LC_")
        assert not dangerous(name)
