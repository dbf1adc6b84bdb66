"""How real servers refuse the form of a request: shapes collected from public reports of their users, and what each asks for."""

import json
from typing import Any


def openai(message: str, parameter: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's form, which Azure, Groq, Kimi and others use, too."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": parameter, "code": code}}


def forbidden(*names: str) -> list[dict[str, Any]]:
    """pydantic's list of forbidden fields, as FastAPI servers send it."""
    return [{"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 256} for name in names]


USE_OTHER = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
NO_ZERO = "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported."
DEPRECATED = "`temperature` is deprecated for this model."

# (server, status, body) of a server that does not know max_tokens.
WANT_OTHER_NAME = [
    ("OpenAI", 400, openai(USE_OTHER, "max_tokens", "unsupported_parameter")),
    ("GitHub Copilot", 400, {"error": {"message": USE_OTHER, "code": "invalid_request_body"}}),
    ("OpenRouter", 400, {"error": {"message": "Provider returned error", "code": 400, "metadata": {
        "raw": json.dumps(openai(USE_OTHER, "max_tokens", "unsupported_parameter"), indent=2), "provider_name": "OpenAI"}}}),
    ("LiteLLM", 400, {"error": {"message": f"litellm.BadRequestError: OpenAIException - {USE_OTHER}", "type": None, "param": None,
                                "code": "400"}}),
    ("FastAPI", 422, {"detail": forbidden("max_tokens")}),
]  # fmt: skip
# ... that does not know max_completion_tokens.
WANT_OLD_NAME = [
    ("Mistral", 422, {"object": "error", "message": {"detail": forbidden("max_completion_tokens")}, "type": "invalid_request_error",
                      "param": None, "code": None}),
    ("vLLM", 400, {"object": "error", "type": "BadRequestError", "param": None, "code": 400,
                   "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'max_completion_tokens'), 'msg': 'Extra inputs are not "
                              "permitted', 'input': 800}]"}),
    ("Azure, an old version", 400, openai("Unrecognized request argument supplied: max_completion_tokens")),
]  # fmt: skip
# ... that refuses the temperature.
WANT_NO_TEMPERATURE = [
    ("OpenAI", 400, openai(NO_ZERO, "temperature", "unsupported_value")),
    ("OpenAI o3-mini", 400, openai("Unsupported parameter: 'temperature' is not supported with this model.", "temperature")),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": DEPRECATED}, "request_id": "req_1"}),
    ("OpenCode Zen", 400, {"message": "temperature is deprecated for this model."}),
    ("Kimi", 400, openai("invalid temperature: only 1 is allowed for this model")),
    ("Mistral, through a proxy", 422, {"object": "error", "message": json.dumps({"detail": forbidden("temperature")}),
                                       "type": "internal_error_proxy", "param": None, "code": "1000"}),
    ("LiteLLM", 400, {"error": {"message": "litellm.UnsupportedParamsError: gpt-5 models don't support temperature=0. Only temperature=1 "
                                           "is supported. To drop unsupported params set `litellm.drop_params = True`. Received Model "
                                           "Group=gpt-5", "type": "None", "param": "None", "code": "400"}}),
    ("LiteLLM with Anthropic", 400, {"error": {"message": "litellm.BadRequestError: AnthropicException - b'{\"type\":\"error\","
                                               "\"error\":{\"type\":\"invalid_request_error\",\"message\":\"" + DEPRECATED + "\"}}'No "
                                               "fallback model group found", "code": "400"}}),
    ("LiteLLM with a list", 400, {"error": {"message": "x does not support parameters: ['temperature'], for model=o1", "code": "400"}}),
]  # fmt: skip
# ... that wants a higher limit.
WANT_MORE = [
    ("OpenAI", 400, openai("Could not finish the message because max_tokens or model output limit was reached. Please try again with "
                           "higher max_tokens.")),
    ("Anthropic", 400, openai("`max_tokens` must be greater than `thinking.budget_tokens`.")),
    ("OpenAI, cut", 200, {"choices": [{"message": {"role": "assistant", "content": ""}, "finish_reason": "length"}]}),
    ("vLLM, cut while thinking", 200, {"choices": [{"message": {"content": None, "reasoning_content": "Let me"},
                                                    "finish_reason": "length"}]}),
]  # fmt: skip
# ... to whom 4096 tokens are always too many, and that names the highest limit: 2048 for all of them.
WANT_LESS = [
    ("OpenAI", 400, openai("max_tokens is too large: 4096. This model supports at most 2048 completion tokens, whereas you provided 4096.",
                           "max_tokens")),
    ("Groq", 400, openai("`max_tokens` must be less than or equal to `2048`, the maximum value for `max_tokens` is less than the "
                         "`context_window` for this model", "max_tokens")),
    ("DeepSeek", 400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 2048]")),
    ("Ollama", 400, openai("max_tokens (4096) exceeds model's maximum output tokens (2048) for model x")),
]  # fmt: skip
# ... to whom 4096 tokens are too many beside this question, and how many it leaves for the reply.
WANT_LESS_ONCE = [
    ("OpenAI's context", 400, openai("This model's maximum context length is 4160 tokens. However, you requested 4200 tokens (104 in the "
                                     "messages, 4096 in the completion).", "messages", "context_length_exceeded"), 4056),
    ("vLLM", 400, {"object": "error", "message": "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context "
                   "length is 4000 tokens and your request has 64 input tokens (4096 > 4000 - 64).", "type": "BadRequestError"}, 3936),
    ("OpenRouter", 400, openai("This endpoint's maximum context length is 8192 tokens. However, you requested about 9096 tokens (5000 of "
                               "text input, 4096 in the output). Please reduce the length of either one."), 3192),
]  # fmt: skip
# ... that say nothing of the form, or of a part of it that is not ours to change.
WANT_NOTHING = [
    ("an unknown model", 400, openai("The model `gpt-9` does not exist", "model", "model_not_found")),
    ("a filter that repeats the question", 400, openai("Your input 'At what temperature is max_tokens 7?' was flagged")),
    ("pydantic, repeating the question", 422, {"detail": [{"type": "string_too_long", "loc": ["body", "messages"], "msg": "Too long",
                                                           "input": "an invalid temperature"}]}),
    ("a long question", 400, openai("This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
                                    "messages", "context_length_exceeded")),
    ("another parameter", 400, openai("Unknown parameter: 'top_p' (temperature is not supported either)", "top_p")),
    ("another status", 404, openai(NO_ZERO, "temperature", "unsupported_value")),
    ("a complete reply", 200, {"choices": [{"message": {"content": "I cannot say."}, "finish_reason": "stop"}]}),
]  # fmt: skip
