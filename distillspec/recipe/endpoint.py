"""A target whose weights are elsewhere: an OpenAI-compatible API that answers with text."""

from __future__ import annotations

import importlib.util
import json
import os
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, JsonValue, model_validator

from distillspec.errors import DistillSpecError
from distillspec.recipe.data import reserved_variables
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Section, Share, Threads
from distillspec.text.secret import masked, names_a_secret

# The value may be a secret that was put in the wrong place: errors do not repeat it.
_UNSHOWN = {"writeOnly": True}
_TEMPLATE = "chat_template_kwargs"  # as vLLM, SGLang and others call it
_OURS = ("model", "prompt", "messages", "seed", "stream", "n", "temperature", "stop")


class EndpointConfig(Section):
    """What is needed to ask it. The key itself is never part of a recipe."""

    url: Annotated[str, Field(json_schema_extra=_UNSHOWN)] = Field(
        description="base address of the API, such as http://localhost:8000/v1"
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        description="name under which the server knows the target"
    )
    api: Literal["completions", "chat"] = Field(
        "completions",
        description="completions: prompts are sent as text; chat: they are chats, and are sent as "
        "messages, which the server's own template renders",
    )
    key_variable: (
        Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$", json_schema_extra=_UNSHOWN)] | None
    ) = Field(
        None,
        description="name (in capitals) of the environment variable that holds the key; null: "
        "the server wants none",
    )
    concurrency: Threads = Field(8, description="requests at one time, over all processes")
    retries: Annotated[int, Field(ge=0, le=20)] = Field(
        5, description="tries after the first for one prompt, with growing waits between them"
    )
    timeout_seconds: float = Field(
        120.0, gt=0.0, le=86_400.0, description="longest wait for one request, seconds"
    )
    max_unanswered: Share = Field(
        0.01,
        description="share of prompts, rounded up, that may stay without a usable answer: they are "
        "left out of training; more of them are an error",
    )
    send_seed: bool = Field(True, description="false for servers that refuse the field `seed`")
    length_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the most tokens of an answer"
    )
    body: dict[str, JsonValue] = Field(
        {},
        description="further fields of every request, such as {top_k: -1}; no secrets: recipe and "
        "store keep them; chats are rendered for the draft with its chat_template_kwargs too",
    )

    @model_validator(mode="after")
    def _is_a_plain_address(self) -> Self:
        try:
            parts = urlsplit(self.url)
            # idna refuses names that cannot be a host; `port` raises for a bad number.
            host, _ = (parts.hostname or "").encode("idna"), parts.port
        except ValueError:
            host = b""
        written = self.url.isprintable() and " " not in self.url
        if not host or not written or parts.scheme not in ("http", "https"):
            raise RefusedError(
                "url is no address",
                keys=["url"],
                fix="write http://HOST:PORT/v1 or https://HOST/v1",
            )
        if (
            parts.username is not None
            or parts.password is not None
            or parts.query
            or parts.fragment
        ):
            raise RefusedError(
                "url holds a user, a password, a query or a fragment",
                keys=["url"],
                fix="give the bare address; put the key into an environment variable, and name "
                "that variable with key_variable",
                why="recipes are copied into run folders, and must hold no secrets",
            )
        return self

    @property
    def template_variables(self) -> dict[str, JsonValue]:
        """Variables of the chat template besides the messages, for server and draft."""
        found = self.body.get(_TEMPLATE, {})
        assert isinstance(found, dict), "the section has been checked"
        return found

    @model_validator(mode="after")
    def _tells_the_template(self) -> Self:
        found = self.body.get(_TEMPLATE, {})
        if not isinstance(found, dict):
            raise RefusedError(
                f"body.{_TEMPLATE} is no object",
                keys=[f"body.{_TEMPLATE}"],
                fix="write an object, such as {enable_thinking: false}",
            )
        taken = reserved_variables(found)
        if taken:
            raise RefusedError(
                f"body.{_TEMPLATE} may not hold '{taken[0]}'",
                keys=[f"body.{_TEMPLATE}"],
                fix=f"remove {taken[0]}",
                why="the draft reads prompts through its own template, which ends where the model "
                "is to speak",
            )
        return self

    @model_validator(mode="after")
    def _sends_no_secret(self) -> Self:
        # Fields that are named like a secret, and values that look like one.
        named = sorted(key for key in self.body if names_a_secret(key))
        if named or masked(json.dumps(self.body)) != json.dumps(self.body):
            raise RefusedError(
                f"body holds {named[0] if named else 'a secret'}",
                keys=["body"],
                fix="remove it; put the key into an environment variable, and name that variable "
                "with key_variable",
                why="recipes are copied into run folders, and must hold no secrets",
            )
        return self

    @model_validator(mode="after")
    def _adds_fields(self) -> Self:
        taken = sorted({*_OURS, "max_tokens", "max_completion_tokens"} & self.body.keys())
        if taken:
            raise RefusedError(
                f"body may not hold '{taken[0]}'",
                keys=[f"body.{taken[0]}"],
                fix="remove it",
                why="another key of the recipe sets it; stop would end answers where the target "
                "does not",
            )
        return self


def check_can_ask(endpoint: EndpointConfig) -> None:
    """DistillSpecError where the client library or the key is missing."""
    if importlib.util.find_spec("openai") is None:
        raise DistillSpecError(
            "the package 'openai', which asks the endpoint, is not installed",
            where=f"pair.endpoint: {endpoint.url}",
            fix="pip install openai",
        )
    if endpoint.key_variable is None:
        return
    key = key_of(endpoint)
    # An HTTP header takes printable ASCII only.
    if not key or not (key.isascii() and key.isprintable()):
        fault = "holds what cannot be a key" if key else "is not set"
        raise DistillSpecError(
            f"the environment variable {endpoint.key_variable} {fault}",
            where="pair.endpoint.key_variable",
            fix=f"export {endpoint.key_variable}=... in the shell that starts this",
        )


def key_of(endpoint: EndpointConfig) -> str | None:
    """The key, from the environment; None where none is wanted or there."""
    name = endpoint.key_variable
    return None if name is None else os.environ.get(name, "").strip() or None


def refuse_endpoint(endpoint: EndpointConfig | None, verb: str) -> None:
    """DistillSpecError where a verb needs weights and the recipe has an endpoint."""
    if endpoint is not None:
        raise DistillSpecError(
            f"`{verb}` needs the target's distribution, and an endpoint gives text alone",
            where=f"pair.endpoint: {endpoint.model} behind {endpoint.url}",
            fix="where the target's weights are: distillspec tune TARGET RUN-FOLDER/draft "
            "--prompts FILE.jsonl, or `check` with a recipe whose pair.draft is that folder",
        )
