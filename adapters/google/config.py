"""The knobs of a request as Google's generationConfig.

The granted output limit is always what is sent as maxOutputTokens (thoughts count against it), and candidateCount is
always OpenAI's `n`: native fields of a client may tune anything but what was reserved for.
Source: https://ai.google.dev/api/generate-content#v1beta.GenerationConfig
"""

from typing import Any

from adapters.base import JSON, Call
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.google.models import Model
from adapters.google.schema import answer_schema
from adapters.google.thinking import thinking_of
from adapters.lenient import member, string

STOPS_MAX = 5
_INT32 = 2**31
_NUMBERS = {
    "temperature": "temperature",
    "top_p": "topP",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
_SNAKE = {
    "top_k": "topK",
    "thinking_config": "thinkingConfig",
    "speech_config": "speechConfig",
    "image_config": "imageConfig",
    "media_resolution": "mediaResolution",
    "response_modalities": "responseModalities",
    "response_mime_type": "responseMimeType",
    "response_schema": "responseSchema",
    "response_json_schema": "responseJsonSchema",
    "audio_timestamp": "audioTimestamp",
    "routing_config": "routingConfig",
    "enable_enhanced_civic_answers": "enableEnhancedCivicAnswers",
}
NATIVE_CONFIG = frozenset([*_SNAKE, *_SNAKE.values()])
_RESERVED = {
    "maxOutputTokens": "max_completion_tokens",
    "max_output_tokens": "max_completion_tokens",
    "candidateCount": "n",
    "candidate_count": "n",
}


def config_of(call: Call, model: Model, native: JSON, *, has_functions: bool) -> tuple[JSON, list[str]]:
    """Return generationConfig and the fields that had no place in it; `native` are the client's own entries for it.

    Raises InvalidRequestError and UnsupportedParameterError.
    """
    body, dropped = call.body, list[str]()
    config: JSON = {}
    _sampling(body, config, model, dropped)
    _answer_form(body, config, model, has_functions=has_functions)
    _modalities(call, config)
    effort = body.get("reasoning_effort")
    if effort is not None:
        thinking = thinking_of(effort, model)
        if thinking is None:
            dropped.append("reasoning_effort")
        else:
            config["thinkingConfig"] = thinking
    for name, value in native.items():
        if name in _RESERVED:
            raise UnsupportedParameterError(f"generationConfig.{name}", f"Use {_RESERVED[name]} instead.")
        config[_SNAKE.get(name, name)] = value
    limit = call.output_limit if call.output_limit is not None else client_limit(body)
    if limit is not None:
        config["maxOutputTokens"] = limit
    return config, dropped


def client_limit(body: JSON) -> int | None:
    """Return the client's own output limit. Raises InvalidRequestError."""
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidRequestError(f"'{name}' must be an integer of at least 1.", param=name)
        return value
    return None


def _sampling(body: JSON, config: JSON, model: Model, dropped: list[str]) -> None:
    for name, theirs in _NUMBERS.items():
        if body.get(name) is None:
            continue
        value = _number(body, name)
        if "penalty" not in name or model.penalties:
            config[theirs] = value
        elif value:
            dropped.append(name)
    if body.get("seed") is not None:
        config["seed"] = (_integer(body, "seed") + _INT32) % (2 * _INT32) - _INT32
    stops = _stops(body.get("stop"))
    if stops:
        config["stopSequences"] = stops
    _counts(body, config)


def _counts(body: JSON, config: JSON) -> None:
    count = _integer(body, "n") if body.get("n") is not None else 1
    if count < 1:
        raise InvalidRequestError("'n' must be at least 1.", param="n")
    if count > 1:
        config["candidateCount"] = count
    if body.get("logprobs") is True:
        config["responseLogprobs"] = True
        if body.get("top_logprobs"):
            config["logprobs"] = _integer(body, "top_logprobs")


def _answer_form(body: JSON, config: JSON, model: Model, *, has_functions: bool) -> None:
    form = body.get("response_format")
    if form is None:
        return
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        text = "'response_format.type' must be text, json_object or json_schema."
        raise InvalidRequestError(text, param="response_format")
    if kind == "text":
        return
    if has_functions and not model.json_with_tools:
        raise UnsupportedParameterError("response_format", "This model takes either tools or a JSON response format.")
    config["responseMimeType"] = "application/json"
    schema = member(form, "json_schema").get("schema")
    if kind == "json_schema" and isinstance(schema, dict):
        config.update(answer_schema(schema, openapi=model.schema == "openapi"))


def _modalities(call: Call, config: JSON) -> None:
    modalities, audio = call.body.get("modalities"), call.body.get("audio")
    if not isinstance(modalities, list) or modalities in ([], ["text"]):
        return
    names = [string(name).upper() for name in modalities]
    if "AUDIO" in names:
        form = audio.get("format") if isinstance(audio, dict) else None
        if form not in ({"pcm16"} if call.stream else {"pcm16", "wav"}):
            raise UnsupportedParameterError("audio.format", "This provider speaks pcm16, and wav when not streaming.")
        voice = audio.get("voice") if isinstance(audio, dict) else None
        name = string(voice.get("id")) if isinstance(voice, dict) else string(voice)
        if name:
            config["speechConfig"] = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": name}}}
        if "tts" in call.upstream_model:
            names = ["AUDIO"]  # a model that only speaks refuses any other list
    config["responseModalities"] = names


def _stops(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop
    if stops is None:
        return []
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise InvalidRequestError("'stop' must be a string or a list of strings.", param="stop")
    stops = [text for text in stops if text]
    if len(stops) > STOPS_MAX:
        raise UnsupportedParameterError("stop", f"This provider takes at most {STOPS_MAX} stop sequences.")
    return stops


def _number(body: JSON, name: str) -> float:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"'{name}' must be a number.", param=name)
    return value


def _integer(body: JSON, name: str) -> int:
    value = body[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError(f"'{name}' must be an integer.", param=name)
    return value
