"""Codes, categories and retry classes of the reference hold; errors survive being written down."""

from __future__ import annotations

import msgspec
import pytest

from agentkeel import errors
from agentkeel.errors import CODES, Error, ProviderFailure, ValidationError, failure, from_mapping, wrap

REFERENCE = {
    "validation": "validation_error invalid_input missing_required_field invalid_format",
    "state": "invalid_status invalid_transition invalid_event_type invalid_capability_type missing_required_capability "
    "stream_closed context_mismatch invalid_cursor session_mismatch run_mismatch",
    "resource": "not_found session_not_found run_not_found capability_not_found already_exists duplicate_capability",
    "provider": "provider_error provider_unavailable provider_rate_limited provider_timeout "
    "provider_authentication_failed provider_quota_exceeded",
    "storage": "storage_error storage_connection_failed dependency_not_available migration_required "
    "storage_write_failed storage_read_failed",
    "runtime": "timeout cancelled policy_violation internal_error unknown_error",
    "concurrency": "max_sessions_exceeded max_runs_exceeded capability_not_supported invalid_operation",
    "tool": "tool_error tool_not_found tool_execution_failed tool_permission_denied",
}
RETRYABLE = {
    "provider_unavailable",
    "provider_rate_limited",
    "provider_timeout",
    "storage_connection_failed",
    "timeout",
}


def test_every_code_of_the_reference_has_its_category() -> None:
    for category, codes in REFERENCE.items():
        for code in codes.split():
            assert CODES[code].category == category
            assert failure(code, "m").category == category


def test_the_codes_the_reference_retries_are_retryable_and_its_others_are_not() -> None:
    codes = " ".join(REFERENCE.values()).split()
    assert {code for code in codes if failure(code, "m").retryable} == RETRYABLE


@pytest.mark.parametrize(
    ("code", "retry"),
    [
        ("provider_rate_limited", "later"),
        ("provider_unavailable", "elsewhere"),
        ("timeout", "same"),
        ("policy_violation", "never"),
    ],
)
def test_each_error_says_how_to_retry(code: str, retry: str) -> None:
    assert failure(code, "m").retry == retry


def test_a_code_gives_its_class_and_each_class_its_code() -> None:
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, Error):
            assert type(failure(cls.default_code, "m")) is cls or cls is Error or cls in _FAMILIES


_FAMILIES = {errors.ValidationError, errors.StateError, errors.NotFound, errors.StorageError, errors.ProviderError}


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        cls = getattr(errors, name)
        if isinstance(cls, type) and issubclass(cls, Error):
            assert f" {name}" in errors.__doc__ or name == "Error"


def test_the_text_form_begins_with_the_code() -> None:
    assert str(failure("timeout", "too late")) == "[timeout] too late"


def test_an_unknown_code_is_a_mistake_of_the_programmer() -> None:
    with pytest.raises(ValueError, match="no error code"):
        Error("m", code="nonsense")


def test_an_error_survives_being_written_down() -> None:
    words = ProviderFailure.of("claude", "transport_exit", exit_code=3, stderr="boom\nmore")
    error = failure("agent_crashed", "gone", details={"a": 1}, provider_error=words, retry_after=2.5)
    back = from_mapping(msgspec.json.decode(msgspec.json.encode(error.to_mapping())))
    assert (type(back), back.code, back.message, back.details) == (type(error), "agent_crashed", "gone", {"a": 1})
    assert back.provider_error == words
    assert back.retry_after == 2.5


@pytest.mark.parametrize("data", [{}, {"code": "nonsense", "message": "m"}, {"code": "timeout"}])
def test_what_is_no_error_reads_as_a_validation_error(data: dict[str, str]) -> None:
    assert isinstance(from_mapping(data), ValidationError)


def test_wrapping_keeps_the_original() -> None:
    cause = KeyError("x")
    error = wrap(cause, "it broke")
    assert error.code == "internal_error"
    assert error.details == {"original_exception": "KeyError", "original_message": "'x'"}
    assert error.__cause__ is cause
    assert wrap(error) is error


def test_a_provider_failure_has_six_keys_and_a_message() -> None:
    words = ProviderFailure.of("codex", "timeout", stderr="first line\nsecond")
    assert set(msgspec.to_builtins(words)) == {"provider", "kind", "message", "exit_code", "stderr", "truncated"}
    assert words.message == "first line"
    assert ProviderFailure.of("codex", "timeout").message


@pytest.mark.parametrize(
    ("stderr", "most"), [("line\n" * 500, 200 * 5), ("é" * 20_000, 16_384), ("x" * 16_384, 16_384)]
)
def test_stderr_is_cut_at_lines_then_bytes_and_never_inside_a_character(stderr: str, most: int) -> None:
    words = ProviderFailure.of("claude", "transport_exit", stderr=stderr)
    assert words.stderr is not None
    assert len(words.stderr.encode()) <= most
    assert stderr.startswith(words.stderr)
    assert words.truncated is (True if len(words.stderr) < len(stderr) else None)
