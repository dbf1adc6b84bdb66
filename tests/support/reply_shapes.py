"""Replies as real servers send them: status, headers, body, whose fault they are, and where they were seen.

The bodies are rewritten from what people published in issues (the source of each is named); names and numbers are ours.
"""

import gzip
import json
from typing import Any, NamedTuple

ANSWER, OWN, CLOUD, PASSING = "answer", "own", "cloud", "passing"


class Shape(NamedTuple):
    """One reply. `fault`: it answers, it is about this question alone, about the whole cloud, or about a moment that passes."""

    name: str
    fault: str
    status: int
    headers: dict[str, str]
    body: bytes
    source: str


def _json(
    name: str, fault: str, source: str, payload: Any, status: int = 200, content_type: str = "application/json", **headers: str
) -> Shape:
    more = {key.replace("_", "-"): value for key, value in headers.items()}
    return Shape(name, fault, status, {"Content-Type": content_type, **more}, json.dumps(payload).encode(), source)


def _page(name: str, fault: str, source: str, status: int, title: str, text: str = "", **headers: str) -> Shape:
    more = {key.replace("_", "-"): value for key, value in headers.items()}
    body = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1>{text}</body></html>".encode()
    return Shape(name, fault, status, {"Content-Type": "text/html; charset=utf-8", **more}, body, source)


def _chat(name: str, source: str, message: dict[str, Any] | None = None, usage: dict[str, Any] | None = None, **more: Any) -> Shape:
    """A chat completion that answers B; `more` are further members of the reply, `choice` of the choice."""
    fault = more.pop("fault", ANSWER)
    choice = {"index": 0, "message": {"role": "assistant", "content": "B", **(message or {})}, "finish_reason": "stop"}
    choice |= more.pop("choice", {})
    tokens = {"prompt_tokens": 31, "completion_tokens": 2, "total_tokens": 33, **(usage or {})}
    payload = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "big", "choices": [choice], "usage": tokens, **more}
    return _json(name, fault, source, payload)


def _openai(name: str, fault: str, status: int, source: str, message: str, kind: str, code: Any, **headers: str) -> Shape:
    return _json(name, fault, source, {"error": {"message": message, "type": kind, "param": None, "code": code}}, status, **headers)


def _cut(shape: Shape, name: str, body: bytes, fault: str = PASSING, **headers: str) -> Shape:
    return shape._replace(name=name, fault=fault, body=body, headers={**shape.headers, **headers})


_CHAT = _chat("openai answer", "platform.openai.com/docs/api-reference/chat/object", {"refusal": None, "annotations": []})
_PORTAL_PAGE = _page("portal page", CLOUD, "RFC 6585 section 6", 200, "Hotel login", "<form>Room number</form>")

ANSWERS = [
    _CHAT,
    _chat(
        "azure answer", "github.com/langchain-ai/langchain/pull/12960",
        choice={"content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}},
        prompt_filter_results=[{"prompt_index": 0, "content_filter_results": {}}], system_fingerprint="fp_1",
    ),
    _chat(
        "openrouter answer", "github.com/reVrost/go-openrouter/pull/43",
        {"reasoning": None, "refusal": None}, choice={"native_finish_reason": "completed", "logprobs": None}, provider="DeepInfra",
    ),
    _chat(
        "vllm answer", "github.com/vllm-project/vllm/issues/14170",
        {"reasoning_content": None, "tool_calls": []}, {"prompt_tokens_details": None}, choice={"stop_reason": None}, prompt_logprobs=None,
    ),
    _chat(
        "sglang answer", "github.com/sgl-project/sglang/issues/4550",
        {"reasoning_content": None, "tool_calls": None}, {"prompt_tokens_details": None}, choice={"matched_stop": 151645, "logprobs": None},
    ),
    _chat(
        "llama.cpp answer", "github.com/theroyallab/tabbyAPI/pull/478",
        timings={"cache_n": 7, "prompt_n": 10, "prompt_ms": 251.51, "predicted_n": 2, "predicted_ms": 11.7}, system_fingerprint="b9554",
    ),
    _chat("ollama answer", "github.com/ollama/ollama/issues/305", system_fingerprint="fp_ollama"),
    _chat("litellm answer", "github.com/BerriAI/litellm/issues/5017", usage={"prompt_cache_hit_tokens": 0}, service_tier=None),
    _chat("deepseek answer", "github.com/BerriAI/litellm/issues/5017", {"reasoning_content": "3 is odd."}, {"prompt_cache_miss_tokens": 9}),
    _chat("groq answer", "github.com/vercel/ai/pull/8723", usage={"queue_time": 0.02, "total_time": 0.05}, x_groq={"id": "req_1"}),
    _chat("anthropic-compatible answer", "platform.claude.com/docs/en/api/openai-sdk", {"content": "B\n"}, service_tier=None),
    _chat("gemini-compatible answer", "github.com/continuedev/continue/issues/10748", {"content": "B. 4", "extra_content": {}}),
    _cut(_CHAT, "packed answer", gzip.compress(_CHAT.body), ANSWER, **{"Content-Encoding": "gzip"}),
]  # fmt: skip

OWN_FAULTS = [
    _openai("openai context length", OWN, 400, "github.com/langchain-ai/langchain/issues/24058",
            "This model's maximum context length is 8192 tokens.", "invalid_request_error", "context_length_exceeded"),
    _openai("openai request too large", OWN, 429, "github.com/continuedev/continue/issues/11717",
            "Request too large for big on tokens per min (TPM): Limit 30000, Requested 37313.", "tokens", "rate_limit_exceeded"),
    _openai("groq request too large", OWN, 413, "github.com/assafelovic/gpt-researcher/issues/985",
            "Request too large for model `big` on tokens per minute (TPM): Limit 6000, Requested 14368", "tokens", "rate_limit_exceeded"),
    _json("azure content filter", OWN, "github.com/compl-ai/compl-ai/issues/20", {"error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.", "type": None,
        "param": "prompt", "code": "content_filter", "status": 400, "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, 400),
    _json("openrouter moderation", OWN, "openrouter.ai/docs/api-reference/errors", {"error": {
        "code": 403, "message": "big requires moderation and your input was flagged",
        "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "OpenAI"}}}, 403),
    _json("vllm context length", OWN, "github.com/vllm-project/vllm/issues/4667", {
        "object": "error", "message": "max_tokens must be at least 1, got -186.", "type": "BadRequestError", "code": 400}, 400),
    _json("llama.cpp context size", OWN, "github.com/oobabooga/textgen/issues/7257", {"error": {
        "code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error"}}, 400),
    _json("llama.cpp context size with status 200", OWN, "github.com/oobabooga/textgen/issues/7257", {"error": {
        "code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error"}}),
    _page("nginx body too large", OWN, "github.com/continuedev/continue/issues/10218", 413, "413 Request Entity Too Large", "nginx"),
    _page("cloudflare blocks a word", OWN, "github.com/openai/codex/issues/4284", 403, "Attention Required! | Cloudflare",
          "Sorry, you have been blocked. There are several actions that could trigger this block, such as a SQL command."),
    _chat("refusal", "platform.openai.com/docs/guides/structured-outputs", {"content": None, "refusal": "I can't help."}, fault=OWN),
    _chat("cut by length", "github.com/14790897/MiqroForge-Desktop/pull/1100", choice={"finish_reason": "length"}, fault=OWN),
    _chat("content filter", "github.com/pydantic/pydantic-ai/issues/2844", choice={"finish_reason": "content_filter"}, fault=OWN),
    _chat("tool call", "github.com/log10-io/log10/pull/152", {"content": None, "tool_calls": [{"id": "1"}]}, fault=OWN),
]  # fmt: skip

CLOUD_FAULTS = [
    _openai("openai unknown model", CLOUD, 404, "github.com/shobrook/wut/issues/14",
            "The model `big` does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    _openai("openai wrong key", CLOUD, 401, "github.com/chatanywhere/GPT_API_free/issues/62",
            "Incorrect API key provided: sk-VK***jh3.", "invalid_request_error", "invalid_api_key"),
    _openai("openai unsupported parameter", CLOUD, 400, "github.com/microsoft/clarity-agent/issues/59",
            "Unsupported parameter: 'max_tokens' is not supported with this model.", "invalid_request_error", "unsupported_parameter"),
    _openai("openai no quota", CLOUD, 429, "platform.openai.com/docs/guides/error-codes",
            "You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
    _openai("openai country", CLOUD, 403, "platform.openai.com/docs/guides/error-codes",
            "Country, region, or territory not supported", "request_forbidden", "unsupported_country_region_territory"),
    _openai("not a chat model", CLOUD, 404, "github.com/truefoundry/models/pull/846",
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint.", "invalid_request_error", None),
    _json("azure unknown deployment", CLOUD, "learn.microsoft.com/azure/ai-services/openai", {"error": {
        "code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, 404),
    _json("azure wrong address", CLOUD, "learn.microsoft.com/azure/ai-services/openai", {"error": {
        "code": "404", "message": "Resource not found"}}, 404),
    _json("azure gateway wrong key", CLOUD, "learn.microsoft.com/azure/api-management", {
        "statusCode": 401, "message": "Access denied due to invalid subscription key."}, 401),
    _json("old vllm unknown model", CLOUD, "github.com/vllm-project/vllm/issues/3485", {
        "object": "error", "message": "The model `big` does not exist.", "type": "NotFoundError", "param": None, "code": 404}, 404),
    _json("fastapi wrong path", CLOUD, "fastapi.tiangolo.com/tutorial/handling-errors", {"detail": "Not Found"}, 404),
    _json("fastapi wrong method", CLOUD, "fastapi.tiangolo.com/tutorial/handling-errors", {"detail": "Method Not Allowed"}, 405),
    _json("fastapi wrong body", CLOUD, "fastapi.tiangolo.com/tutorial/handling-errors", {"detail": [
        {"type": "missing", "loc": ["body", "prompt"], "msg": "Field required", "input": {"model": "big"}}]}, 422),
    _json("llama.cpp wrong path", CLOUD, "github.com/ggml-org/llama.cpp/pull/15780", {"error": {
        "code": 404, "message": "File Not Found", "type": "not_found_error"}}, 404),
    _json("llama.cpp wrong key", CLOUD, "github.com/ggml-org/llama.cpp/pull/15780", {"error": {
        "message": "Invalid API Key", "type": "authentication_error", "code": 401}}, 401),
    _json("ollama unknown model", CLOUD, "github.com/netease-youdao/QAnything/issues/555", {"error": {
        "message": 'model "big" not found, try pulling it first', "type": "api_error", "param": None, "code": None}}, 404),
    _json("ollama unknown model as text", CLOUD, "github.com/otwld/ollama-helm/issues/61", {"error": "model 'big' not found"}, 404),
    Shape("ollama wrong path", CLOUD, 404, {"Content-Type": "text/plain"}, b"404 page not found", "github.com/BerriAI/litellm/issues/2398"),
    Shape("ollama root", CLOUD, 200, {"Content-Type": "text/plain"}, b"Ollama is running", "github.com/ollama/ollama/issues/305"),
    _json("litellm unknown model", CLOUD, "github.com/BerriAI/litellm/pull/3142", {"error": {
        "message": "400: {'error': 'Invalid model name passed in model=big'}", "type": "None", "param": "None", "code": 400}}, 400),
    _json("litellm error in an error", CLOUD, "github.com/BerriAI/litellm/issues/8821", {"error": {
        "message": {"error": "/chat/completions: Invalid model name passed in model=big."}, "type": "None", "code": "400"}}, 400),
    _json("anthropic unknown model", CLOUD, "github.com/presidio-oss/factif-ai/issues/34", {
        "type": "error", "error": {"type": "not_found_error", "message": "model: big"}}, 404),
    _json("anthropic message", CLOUD, "github.com/Aider-AI/aider/issues/1651", {
        "id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "B"}], "stop_reason": "end_turn"}),
    _json("openrouter unknown model", CLOUD, "github.com/OpenRouterTeam/openrouter-examples/issues/74", {
        "error": {"message": "big is not a valid model ID", "code": 400}, "user_id": "user_1"}, 400),
    _json("openrouter no credit", CLOUD, "openrouter.ai/docs/api-reference/errors", {"error": {
        "message": "This request requires more credits, or fewer max_tokens.", "code": 402}}, 402),
    _json("openrouter unsupported field", CLOUD, "github.com/reVrost/go-openrouter/pull/21", {"error": {
        "message": "Provider returned error", "code": 400, "metadata": {
            "raw": json.dumps({"error": {"message": "Reasoning is mandatory for this endpoint."}}), "provider_name": "X"}}}, 400),
    _json("google wrong key in a list", CLOUD, "github.com/continuedev/continue/issues/10748", [{"error": {
        "code": 400, "message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}}], 400),
    _json("aws gateway wrong path", CLOUD, "docs.aws.amazon.com/apigateway", {"message": "Missing Authentication Token"}, 403),
    _page("express wrong path", CLOUD, "github.com/Routstr/routstr-core/issues/461", 404, "Error", "<pre>Cannot POST /v1</pre>"),
    _page("nginx 404", CLOUD, "nginx.org", 404, "404 Not Found", "nginx/1.24.0"),
    _page("nginx 405", CLOUD, "nginx.org", 405, "405 Not Allowed", "nginx/1.24.0", Allow="GET, HEAD"),
    _page("plain HTTP to a TLS port", CLOUD, "nginx.org", 400, "400 The plain HTTP request was sent to HTTPS port"),
    _page("file server", CLOUD, "docs.python.org/3/library/http.server.html", 501, "Error response", "Unsupported method ('POST')"),
    _page("cloudflare blocks the address", CLOUD, "github.com/OpenHands/OpenHands/issues/4480", 403, "Attention Required! | Cloudflare"),
    _page("portal redirect", CLOUD, "evertpot.com/http/511-network-authentication-required", 302, "Found", Location="http://login.test/?t=1"),
    _page("moved", CLOUD, "RFC 9110 section 15.4", 308, "Permanent Redirect", Location="https://cloud.test/v1/chat/completions"),
    _PORTAL_PAGE,
    _page("portal 511", CLOUD, "RFC 6585 section 6", 511, "Network Authentication Required"),
    _cut(_PORTAL_PAGE, "portal page of 1.2 MB", _PORTAL_PAGE.body + b"<!-- -->" * 150_000, CLOUD),
    _cut(_PORTAL_PAGE, "portal page in brotli", b"\x0b\x02\x80<html>\x03", CLOUD, **{"Content-Encoding": "br"}),
    _page("proxy wants a password", CLOUD, "RFC 9110 section 15.5.8", 407, "Proxy Authentication Required", Proxy_Authenticate="Basic"),
    Shape("nothing", CLOUD, 204, {}, b"", "evertpot.com/http/511-network-authentication-required"),
    Shape("empty", CLOUD, 200, {"Content-Type": "application/json"}, b"", "RFC 9110 section 15.3.1"),
    _cut(_CHAT, "part", _CHAT.body[:60], CLOUD)._replace(status=206),
    Shape("stream", CLOUD, 200, {"Content-Type": "text/event-stream"},
          b'data: {"choices": [{"index": 0, "delta": {"content": "B"}}]}\n\ndata: [DONE]\n\n', "github.com/openai-php/client/issues/780"),
    _json("list of models", CLOUD, "github.com/ibm-granite/granite-io/issues/207", {"object": "list", "data": [{"id": "big"}]}),
    _chat("model that only thinks", "github.com/huggingface/chat-ui/issues/1816", {"content": "", "reasoning_content": "Hm."}, fault=CLOUD),
]  # fmt: skip

PASSING_FAULTS = [
    _openai("openai rate limit", PASSING, 429, "platform.openai.com/docs/guides/rate-limits",
            "Rate limit reached for big", "requests", "rate_limit_exceeded", Retry_After="20", x_ratelimit_reset_requests="8.64s"),
    _json("openrouter provider limit", PASSING, "github.com/open-webui/computer/issues/293", {"error": {
        "message": "Provider returned error", "code": 429, "metadata": {"raw": "big is temporarily rate-limited upstream."}}}, 429),
    _page("cloudflare rate limit", PASSING, "developers.cloudflare.com/support/troubleshooting", 429, "Error 1015", Retry_After="30"),
    _json("llama.cpp loading", PASSING, "github.com/ggml-org/llama.cpp/pull/15780", {"error": {
        "code": 503, "message": "Loading model", "type": "unavailable_error"}}, 503),
    _json("openrouter 502 in a 200", PASSING, "github.com/anomalyco/opencode/issues/22448", {"error": {
        "code": 502, "message": "Network connection lost.", "metadata": {"error_type": "provider_unavailable"}}}),
    _json("anthropic overloaded", PASSING, "docs.claude.com/en/api/errors", {
        "type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529),
    _page("nginx 502", PASSING, "github.com/vybestack/llxprt-code/issues/1180", 502, "502 Bad Gateway", "nginx"),
    _page("nginx 504", PASSING, "nginx.org", 504, "504 Gateway Time-out", "nginx"),
    *(_page(f"cloudflare {code}", PASSING, "developers.cloudflare.com/support/troubleshooting", code, f"Error {code}")
      for code in (520, 521, 522, 523, 524, 525, 526, 530)),
    _cut(_CHAT, "cut off", _CHAT.body[:100]),
    Shape("timeout of a proxy", PASSING, 408, {"Content-Type": "text/plain", "Connection": "close"}, b"", "RFC 9110 section 15.5.9"),
]  # fmt: skip

SHAPES = [*ANSWERS, *OWN_FAULTS, *CLOUD_FAULTS, *PASSING_FAULTS]
