"""What becomes of every field that the newest `openai`, `ollama` and `anthropic` clients can send.

This is the one place where that is decided; test_every_field.py holds it against the clients' own
request types and against what the surfaces do. Members of a union are told apart by their type or
role. What stands below a field that is refused or named shares that.
"""

from collections.abc import Mapping
from typing import Any, Final

PASSED: Final = "passed on"
"""It is in the job's request; what its backend has no word for is refused or named there."""
ANSWER: Final = "about the answer"
"""It says how the answer is told, or names something; the surface sees to it itself. (A picture's
type is what its bytes are.)"""
NAMED: Final = "named"
"""Nothing is done with it, and X-Fleet-Ignored says so."""
REFUSED: Final = "refused"
"""400 with the field's name: without it the answer would be another one than was asked for."""


def _table(
    *, passed: str = "", answer: str = "", named: str = "", refused: str = ""
) -> Mapping[str, str]:
    fates = {PASSED: passed, ANSWER: answer, NAMED: named, REFUSED: refused}
    return {path: fate for fate, paths in fates.items() for path in paths.split()}


CHAT: Final = _table(
    passed="""
        messages[developer].content messages[developer].content[text].text
        messages[system].content messages[system].content[text].text messages[user].content
        messages[user].content[text].text messages[user].content[image_url].image_url.url
        messages[assistant].content messages[assistant].content[text].text
        messages[assistant].content[refusal].refusal
        messages[assistant].function_call.arguments messages[assistant].function_call.name
        messages[assistant].refusal messages[assistant].tool_calls[function].id
        messages[assistant].tool_calls[function].function.arguments
        messages[assistant].tool_calls[function].function.name messages[tool].content
        messages[tool].content[text].text messages[tool].tool_call_id
        messages[function].content messages[function].name model frequency_penalty
        function_call function_call.name functions[].name functions[].description
        functions[].parameters logit_bias logprobs max_completion_tokens max_tokens metadata
        parallel_tool_calls presence_penalty prompt_cache_key reasoning_effort response_format
        response_format(json_schema).json_schema.name
        response_format(json_schema).json_schema.schema
        response_format(json_schema).json_schema.strict seed service_tier stop temperature
        tool_choice tool_choice(allowed_tools).allowed_tools.mode
        tool_choice(allowed_tools).allowed_tools.tools tool_choice(function).function.name
        tools[function].function.name tools[function].function.description
        tools[function].function.parameters tools[function].function.strict top_logprobs top_p
        user
    """,
    answer="""
        stream_options.include_usage stream
    """,
    named="""
        messages[developer].content[text].prompt_cache_breakpoint messages[developer].name
        messages[system].content[text].prompt_cache_breakpoint messages[system].name
        messages[user].content[text].prompt_cache_breakpoint
        messages[user].content[image_url].image_url.detail
        messages[user].content[image_url].prompt_cache_breakpoint messages[user].name
        messages[assistant].audio messages[assistant].content[text].prompt_cache_breakpoint
        messages[assistant].name messages[tool].content[text].prompt_cache_breakpoint audio
        moderation prediction prompt_cache_options prompt_cache_retention
        response_format(json_schema).json_schema.description safety_identifier store
        stream_options.include_obfuscation verbosity web_search_options
    """,
    refused="""
        messages[user].content[input_audio] messages[user].content[file]
        messages[assistant].tool_calls[custom] modalities n tool_choice(custom) tools[custom]
    """,
)

COMPLETIONS: Final = _table(
    passed="""
        model prompt frequency_penalty logit_bias logprobs max_tokens presence_penalty seed
        stop suffix temperature top_p user
    """,
    answer="""
        echo stream_options.include_usage stream
    """,
    named="""
        stream_options.include_obfuscation
    """,
    refused="""
        best_of n
    """,
)

EMBEDDINGS: Final = _table(
    passed="""
        input model dimensions user
    """,
    answer="""
        encoding_format
    """,
)

IMAGES: Final = _table(
    passed="""
        prompt model n output_format partial_images size user
    """,
    answer="""
        response_format stream
    """,
    named="""
        background complexity frame_count frame_duration_ms moderation output_compression
        quality safety_identifier style svg
    """,
)

EDITS: Final = _table(
    passed="""
        prompt model n output_format partial_images size user
    """,
    answer="""
        response_format stream
    """,
    named="""
        background complexity frame_count frame_duration_ms input_fidelity markup
        output_compression quality safety_identifier svg
    """,
)

RESPONSES: Final = _table(
    passed="""
        background include input input[message].content
        input[message].content[input_text].text
        input[message].content[input_image].image_url input[message].role
        input[message].content[output_text].text input[message].content[refusal].refusal
        input[function_call].arguments input[function_call].call_id
        input[function_call].name input[function_call].namespace
        input[function_call_output].output
        input[function_call_output].output[input_text].text
        input[function_call_output].output[input_image].image_url
        input[function_call_output].call_id input[function_call_output].name
        input[reasoning].summary[summary_text].text
        input[reasoning].content[reasoning_text].text
        input[custom_tool_call_output].call_id input[custom_tool_call_output].output
        input[custom_tool_call_output].output[input_text].text
        input[custom_tool_call_output].output[input_image].image_url
        input[custom_tool_call].call_id input[custom_tool_call].input
        input[custom_tool_call].name input[custom_tool_call].namespace instructions
        max_output_tokens metadata model parallel_tool_calls prompt_cache_key reasoning.effort
        service_tier temperature text.format(json_schema).name
        text.format(json_schema).schema text.format(json_schema).strict tool_choice
        tool_choice(allowed_tools).mode tool_choice(allowed_tools).tools
        tool_choice(function).name tool_choice(custom).name tools[function].name
        tools[function].parameters tools[function].strict tools[function].description
        tools[custom].name tools[custom].description
        tools[custom].format(grammar).definition tools[custom].format(grammar).syntax
        tools[namespace].name tools[namespace].tools[function].name
        tools[namespace].tools[function].description
        tools[namespace].tools[function].parameters
        tools[namespace].tools[function].strict tools[namespace].tools[custom].name
        tools[namespace].tools[custom].description
        tools[namespace].tools[custom].format(grammar).definition
        tools[namespace].tools[custom].format(grammar).syntax top_p truncation user
        top_logprobs
    """,
    answer="""
        input[message].id input[function_call].id input[function_call_output].id
        input[reasoning].id input[custom_tool_call_output].id input[custom_tool_call].id
        previous_response_id reasoning.generate_summary reasoning.summary store stream
    """,
    named="""
        access_programs background_options context_management image
        input[message].content[input_text].prompt_cache_breakpoint
        input[message].content[input_image].detail
        input[message].content[input_image].file_id
        input[message].content[input_image].prompt_cache_breakpoint input[message].phase
        input[message].status input[message].content[output_text].annotations
        input[message].content[output_text].logprobs input[file_search_call]
        input[computer_call] input[computer_call_output] input[web_search_call]
        input[function_call].async input[function_call].caller
        input[function_call].status
        input[function_call_output].output[input_text].prompt_cache_breakpoint
        input[function_call_output].output[input_image].detail
        input[function_call_output].output[input_image].file_id
        input[function_call_output].output[input_image].prompt_cache_breakpoint
        input[function_call_output].caller input[function_call_output].namespace
        input[function_call_output].status input[tool_search_call]
        input[tool_search_output] input[additional_tools] input[configuration_update]
        input[reasoning].encrypted_content input[reasoning].status input[compaction]
        input[image_generation_call] input[code_interpreter_call]
        input[local_shell_call] input[local_shell_call_output] input[shell_call]
        input[shell_call_output] input[apply_patch_call] input[apply_patch_call_output]
        input[mcp_list_tools] input[mcp_approval_request] input[mcp_approval_response]
        input[mcp_call]
        input[custom_tool_call_output].output[input_text].prompt_cache_breakpoint
        input[custom_tool_call_output].output[input_image].detail
        input[custom_tool_call_output].output[input_image].file_id
        input[custom_tool_call_output].output[input_image].prompt_cache_breakpoint
        input[custom_tool_call_output].caller input[custom_tool_call].async
        input[custom_tool_call].caller input[compaction_trigger] input[program]
        input[program_output] max_tool_calls moderation
        prompt_cache_options prompt_cache_retention reasoning.context reasoning.mode
        safety_identifier stream_options text.format(json_schema).description
        text.verbosity tools[function].async tools[function].allowed_callers
        tools[function].defer_loading tools[function].output_schema tools[file_search]
        tools[computer_use_preview] tools[] tools[mcp] tools[code_interpreter]
        tools[image_generation] tools[shell] tools[custom].async
        tools[custom].allowed_callers tools[custom].defer_loading
        tools[namespace].description tools[namespace].tools[function].async
        tools[namespace].tools[function].allowed_callers
        tools[namespace].tools[function].defer_loading
        tools[namespace].tools[function].output_schema
        tools[namespace].tools[custom].async
        tools[namespace].tools[custom].allowed_callers
        tools[namespace].tools[custom].defer_loading tools[tool_search]
        tools[apply_patch]
    """,
    refused="""
        conversation input[message].content[input_file]
        input[function_call_output].output[input_file]
        input[custom_tool_call_output].output[input_file] input[item_reference] prompt
        tool_choice.type tool_choice(mcp)
    """,
)

BATCHES: Final = _table(
    answer="""
        completion_window endpoint input_file_id metadata output_expires_after.anchor
        output_expires_after.seconds
    """,
)

OLLAMA_CHAT: Final = _table(
    passed="""
        model options.num_ctx options.seed options.num_predict options.top_k options.top_p
        options.temperature options.repeat_penalty options.presence_penalty
        options.frequency_penalty options.stop format keep_alive messages messages[].role
        messages[].content messages[].thinking messages[].images messages[].tool_name
        messages[].tool_calls[].function.name messages[].tool_calls[].function.arguments
        tools[].function.name tools[].function.description
        tools[].function.parameters(object).$defs tools[].function.parameters(object).items
        tools[].function.parameters(object).required
        tools[].function.parameters(object).properties think logprobs top_logprobs
    """,
    answer="""
        stream
    """,
    named="""
        options options.numa options.num_batch options.num_gpu options.main_gpu
        options.low_vram options.f16_kv options.logits_all options.vocab_only options.use_mmap
        options.use_mlock options.embedding_only options.num_thread options.num_keep
        options.tfs_z options.typical_p options.repeat_last_n options.mirostat
        options.mirostat_tau options.mirostat_eta options.penalize_newline tools[].type
    """,
)

OLLAMA_GENERATE: Final = _table(
    passed="""
        model options.num_ctx options.seed options.num_predict options.top_k options.top_p
        options.temperature options.repeat_penalty options.presence_penalty
        options.frequency_penalty options.stop format keep_alive prompt suffix system raw
        images think logprobs top_logprobs
    """,
    answer="""
        stream
    """,
    named="""
        options options.numa options.num_batch options.num_gpu options.main_gpu
        options.low_vram options.f16_kv options.logits_all options.vocab_only options.use_mmap
        options.use_mlock options.embedding_only options.num_thread options.num_keep
        options.tfs_z options.typical_p options.repeat_last_n options.mirostat
        options.mirostat_tau options.mirostat_eta options.penalize_newline width height steps
    """,
    refused="""
        template context
    """,
)

OLLAMA_EMBED: Final = _table(
    passed="""
        model input truncate keep_alive dimensions
    """,
    named="""
        options
    """,
)

OLLAMA_EMBEDDINGS: Final = _table(
    passed="""
        model prompt keep_alive
    """,
    named="""
        options
    """,
)

OLLAMA_PULL: Final = _table(
    passed="""
        model insecure
    """,
    answer="""
        stream
    """,
)

OLLAMA_CREATE: Final = _table(
    passed="""
        model quantize from template license system parameters parameters.numa
        parameters.num_ctx parameters.num_batch parameters.num_gpu parameters.main_gpu
        parameters.low_vram parameters.f16_kv parameters.logits_all parameters.vocab_only
        parameters.use_mmap parameters.use_mlock parameters.embedding_only
        parameters.num_thread parameters.num_keep parameters.seed parameters.num_predict
        parameters.top_k parameters.top_p parameters.tfs_z parameters.typical_p
        parameters.repeat_last_n parameters.temperature parameters.repeat_penalty
        parameters.presence_penalty parameters.frequency_penalty parameters.mirostat
        parameters.mirostat_tau parameters.mirostat_eta parameters.penalize_newline
        parameters.stop messages messages[].role messages[].content messages[].thinking
        messages[].images messages[].tool_name messages[].tool_calls[].function.name
        messages[].tool_calls[].function.arguments
    """,
    answer="""
        stream
    """,
    refused="""
        files adapters
    """,
)

OLLAMA_SHOW: Final = _table(
    passed="""
        model
    """,
)

OLLAMA_COPY: Final = _table(
    passed="""
        source destination
    """,
)

NOT_SERVED: Final = frozenset({"WebSearchRequest", "WebFetchRequest", "SystemOneRequest"})
"""Requests of Ollama's client that go to ollama.com, or have no route here (404)."""

IMAGE_VALUES: Final[Mapping[str, tuple[Any, ...]]] = {
    "size": ("512x512", "256x256"),
    "background": ("opaque",),
    "quality": ("low",),
    "response_format": ("b64_json",),
    "output_format": ("png", "webp"),
    "n": (2, 3),
}
"""Values to send where any of the type would not do, as of OpenAI's images."""
OLLAMA_VALUES: Final[Mapping[str, tuple[Any, ...]]] = {
    "messages[].role": ("user", "assistant"),
    "messages[].images": (["iVBORw0KGgo="], ["iVBORw0KGgoA"]),
    "images": (["iVBORw0KGgo="], ["iVBORw0KGgoA"]),
    "format": ("json", {"type": "object"}),
    "keep_alive": (5, 6),
    "context": ([1],),
    "think": (True, "high"),
    "options.num_predict": (5, 6),
}
"""The same, as of Ollama."""

MESSAGES: Final = _table(
    passed="""
        max_tokens messages[user].content messages[user].content[text].text
        messages[user].content[image].source(base64).data
        messages[user].content[image].source(url).url
        messages[user].content[document].source(text).data
        messages[user].content[document].source(content).content
        messages[user].content[document].source(content).content[text].text
        messages[user].content[document].source(content).content[image].source(base64).data
        messages[user].content[document].source(content).content[image].source(url).url
        messages[user].content[document].context messages[user].content[document].title
        messages[user].content[search_result].content[text].text
        messages[user].content[search_result].source
        messages[user].content[search_result].title
        messages[user].content[tool_result].tool_use_id
        messages[user].content[tool_result].content
        messages[user].content[tool_result].content[text].text
        messages[user].content[tool_result].content[image].source(base64).data
        messages[user].content[tool_result].content[image].source(url).url
        messages[user].content[tool_result].content[search_result].content[text].text
        messages[user].content[tool_result].content[search_result].source
        messages[user].content[tool_result].content[search_result].title
        messages[user].content[tool_result].content[document].source(text).data
        messages[user].content[tool_result].content[document].source(content).content
        messages[user].content[tool_result].content[document].source(content).content[text].text
        messages[user].content[tool_result].content[document].source(content).content[image].source(base64).data
        messages[user].content[tool_result].content[document].source(content).content[image].source(url).url
        messages[user].content[tool_result].content[document].context
        messages[user].content[tool_result].content[document].title
        messages[user].content[tool_result].content[tool_reference].tool_name
        messages[user].content[tool_result].is_error messages[assistant].content
        messages[assistant].content[text].text
        messages[assistant].content[thinking].signature
        messages[assistant].content[thinking].thinking
        messages[assistant].content[redacted_thinking].data
        messages[assistant].content[tool_use].id
        messages[assistant].content[tool_use].input
        messages[assistant].content[tool_use].name messages[system].content
        messages[system].content[text].text model metadata.user_id output_config.effort
        output_config.format(json_schema).schema stop_sequences system system[text].text
        thinking(enabled).budget_tokens thinking(enabled).display
        thinking(adaptive).display tool_choice
        tool_choice(auto).disable_parallel_tool_use
        tool_choice(any).disable_parallel_tool_use tool_choice(tool).name
        tool_choice(tool).disable_parallel_tool_use tools[custom].input_schema
        tools[custom].input_schema(object).properties
        tools[custom].input_schema(object).required tools[custom].name
        tools[custom].defer_loading tools[custom].description tools[custom].strict
        tools[].type
    """,
    answer="""
        messages[user].content[image].source(base64).media_type
        messages[user].content[document].source(content).content[image].source(base64).media_type
        messages[user].content[tool_result].content[image].source(base64).media_type
        messages[user].content[tool_result].content[document].source(content).content[image].source(base64).media_type
        messages[user].content[document].source(text).media_type
        messages[user].content[tool_result].content[document].source(text).media_type
        service_tier stream
    """,
    named="""
        messages[user].content[text].cache_control
        messages[user].content[text].citations
        messages[user].content[image].cache_control
        messages[user].content[image].transformations
        messages[user].content[document].source(content).content[text].cache_control
        messages[user].content[document].source(content).content[text].citations
        messages[user].content[document].source(content).content[image].cache_control
        messages[user].content[document].source(content).content[image].transformations
        messages[user].content[document].cache_control
        messages[user].content[document].citations
        messages[user].content[search_result].content[text].cache_control
        messages[user].content[search_result].content[text].citations
        messages[user].content[search_result].cache_control
        messages[user].content[search_result].citations
        messages[user].content[tool_result].cache_control
        messages[user].content[tool_result].content[text].cache_control
        messages[user].content[tool_result].content[text].citations
        messages[user].content[tool_result].content[image].cache_control
        messages[user].content[tool_result].content[image].transformations
        messages[user].content[tool_result].content[search_result].content[text].cache_control
        messages[user].content[tool_result].content[search_result].content[text].citations
        messages[user].content[tool_result].content[search_result].cache_control
        messages[user].content[tool_result].content[search_result].citations
        messages[user].content[tool_result].content[document].source(content).content[text].cache_control
        messages[user].content[tool_result].content[document].source(content).content[text].citations
        messages[user].content[tool_result].content[document].source(content).content[image].cache_control
        messages[user].content[tool_result].content[document].source(content).content[image].transformations
        messages[user].content[tool_result].content[document].cache_control
        messages[user].content[tool_result].content[document].citations
        messages[user].content[tool_result].content[tool_reference].cache_control
        messages[user].content[tool_result].content[browser_state]
        messages[user].content[tool_result].toolset_name
        messages[user].content[server_tool_use]
        messages[user].content[web_search_tool_result]
        messages[user].content[web_fetch_tool_result]
        messages[user].content[code_execution_tool_result]
        messages[user].content[bash_code_execution_tool_result]
        messages[user].content[text_editor_code_execution_tool_result]
        messages[user].content[tool_search_tool_result]
        messages[assistant].content[text].cache_control
        messages[assistant].content[text].citations messages[assistant].content[image]
        messages[assistant].content[document] messages[assistant].content[search_result]
        messages[assistant].content[tool_use].cache_control
        messages[assistant].content[tool_use].caller
        messages[assistant].content[tool_use].toolset_name
        messages[assistant].content[server_tool_use]
        messages[assistant].content[web_search_tool_result]
        messages[assistant].content[web_fetch_tool_result]
        messages[assistant].content[code_execution_tool_result]
        messages[assistant].content[bash_code_execution_tool_result]
        messages[assistant].content[text_editor_code_execution_tool_result]
        messages[assistant].content[tool_search_tool_result]
        messages[system].content[text].cache_control
        messages[system].content[text].citations cache_control container diagnostics
        inference_geo speed system[text].cache_control system[text].citations
        tools[custom].allowed_callers tools[custom].cache_control
        tools[custom].eager_input_streaming tools[custom].input_examples
        tools[bash_20250124] tools[code_execution_20250522]
        tools[code_execution_20250825] tools[code_execution_20260120]
        tools[code_execution_20260521] tools[browser_toolset_20260801]
        tools[memory_20250818] tools[computer_toolset_20260801]
        tools[text_editor_20250124] tools[text_editor_20250429]
        tools[text_editor_20250728] tools[web_search_20250305] tools[web_fetch_20250910]
        tools[web_search_20260209] tools[web_fetch_20260209] tools[web_fetch_20260309]
        tools[web_search_20260318] tools[web_fetch_20260318] tools[].name
        tools[].allowed_callers tools[].cache_control tools[].defer_loading
        tools[].strict user_profile_id workspace_id
    """,
    refused="""
        messages[user].content[image].source(file)
        messages[user].content[document].source(base64)
        messages[user].content[document].source(content).content[image].source(file)
        messages[user].content[document].source(url)
        messages[user].content[document].source(file) messages[user].content[thinking]
        messages[user].content[redacted_thinking] messages[user].content[tool_use]
        messages[user].content[tool_result].content[image].source(file)
        messages[user].content[tool_result].content[document].source(base64)
        messages[user].content[tool_result].content[document].source(content).content[image].source(file)
        messages[user].content[tool_result].content[document].source(url)
        messages[user].content[tool_result].content[document].source(file)
        messages[user].content[container_upload]
        messages[assistant].content[tool_result]
        messages[assistant].content[container_upload]
    """,
)
_PNG: Final = ("iVBORw0KGgoAAAAN", "iVBORw0KGgoAAAAO")
_IN: Final = tuple(
    f"messages[user].content{inner}"
    for inner in ("", "[document].source(content).content", "[tool_result].content",
                  "[tool_result].content[document].source(content).content")
)  # fmt: skip
"""Where images and documents of a message stand."""
MESSAGE_VALUES: Final[Mapping[str, tuple[Any, ...]]] = {
    "container": ("c",),
    "tool_choice": ({"type": "any"}, {"type": "auto"}),
    "tool_choice(tool).name": ("x", "y"),
    **{f"{path}[image].source(base64).data": _PNG for path in _IN},
    **{f"{path}[image].source(url).url": ("http://a/a.png", "http://a/b.png") for path in _IN},
}
MESSAGE_BESIDE: Final[Mapping[str, Any]] = {
    **{
        f"{path}[document]": {"source": {"type": "text", "media_type": "text/plain", "data": "x"}}
        for path in _IN
    },
    **{
        f"{path}[image]": {"source": {"type": "base64", "media_type": "image/png", "data": _PNG[0]}}
        for path in _IN
    },
    "messages[assistant].content[redacted_thinking]": {"type": "redacted_thinking"},
}
