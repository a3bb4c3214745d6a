"""Names of OpenTelemetry's semantic conventions for generative AI, and our own where they have none.

Source: OpenTelemetry semantic conventions 1.41, GenAI (status: development). They say `gen_ai.provider.name` since
1.37; the older `gen_ai.system` is not emitted. Input tokens include those that a cache served or took.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["AGENT_PROVIDERS", "DURATION_BUCKETS", "TOKEN_BUCKETS", "provider_name"]

AGENT_PROVIDERS: Mapping[str, str] = {"claude": "anthropic", "codex": "openai"}
"""Agent -> whose models it asks, in the words of the conventions. An agent that is not here goes by its own name."""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT_NAME = "gen_ai.agent.name"
AGENT_VERSION = "gen_ai.agent.version"
CONVERSATION = "gen_ai.conversation.id"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - the name of an attribute
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_TYPE = "gen_ai.tool.type"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
ERROR_TYPE = "error.type"

INVOKE_AGENT = "invoke_agent"
EXECUTE_TOOL = "execute_tool"
CHAT = "chat"

RUN_ID = "agentkeel.run.id"
RUN_STATUS = "agentkeel.run.status"
RUN_COST = "agentkeel.run.cost_usd"
SESSION_STATUS = "agentkeel.session.status"
TOOL_KIND = "agentkeel.tool.kind"
TOOL_OUTCOME = "agentkeel.tool.outcome"
EXIT_CODE = "agentkeel.tool.exit_code"
ESTIMATED_START = "agentkeel.start.estimated"
INCOMPLETE = "agentkeel.incomplete"

TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - the name of a metric
OPERATION_DURATION = "gen_ai.client.operation.duration"

TOKEN_BUCKETS = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip
"""As the conventions advise."""
DURATION_BUCKETS = (
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68, 655.36,
    1310.72, 2621.44, 5242.88,
)  # fmt: skip
"""As the conventions advise for a model's answer, gone on with for an agent's work."""


def provider_name(agent: str) -> str:
    """`gen_ai.provider.name` of an agent."""
    return AGENT_PROVIDERS.get(agent, agent)
