"""Finds where a JSON value does not fit a schema, by a validator that others wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator


@lru_cache(maxsize=16)
def validator(text: str) -> Draft202012Validator:
    """Make what asks a schema, which must be one itself."""
    schema = json.loads(text)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> list[str]:
    """Give every place that does not fit, with what was expected. `root` has `#/$defs`, where the schema has not."""
    whole = dict(schema)
    if root is not None and "$defs" in root:
        whole["$defs"] = root["$defs"]
    return [f"{error.json_path}: {error.message}" for error in validator(json.dumps(whole)).iter_errors(value)]
