"""Finds where a JSON value does not fit a schema: as much of JSON Schema as ours use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def is_kind(value: object, kind: str) -> bool:
    """Tell whether a value is of this type; in JSON true is no number."""
    return isinstance(value, KINDS[kind]) and not (kind in {"integer", "number"} and isinstance(value, bool))


def faults(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any] | None = None, at: str = "$") -> list[str]:
    """Give every place that does not fit, with what was expected."""
    root = root or schema
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, at)
    if "oneOf" in schema:
        fitting = [one for one in schema["oneOf"] if not faults(value, one, root, at)]
        return [] if len(fitting) == 1 else [f"{at}: fits {len(fitting)} of {len(schema['oneOf'])}: {value!r}"]
    found = []
    kinds = schema.get("type", list(KINDS))
    if not any(is_kind(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        return [f"{at}: {value!r} is not of type {kinds}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is none of {schema['enum']}")
    if isinstance(value, dict):
        found += faults_of_object(value, schema, root, at)
    if isinstance(value, list) and "items" in schema:
        for number, item in enumerate(value):
            found += faults(item, schema["items"], root, f"{at}[{number}]")
    return found


def faults_of_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], at: str
) -> list[str]:
    """Give what lacks, what is too much, and the faults of each member."""
    known = schema.get("properties", {})
    found = [f"{at}: lacks {name}" for name in schema.get("required", []) if name not in value]
    if schema.get("additionalProperties") is False:
        found += [f"{at}: {name} is not in the schema" for name in value if name not in known]
    if isinstance(others := schema.get("additionalProperties"), dict):
        for name in value.keys() - known.keys():
            found += faults(value[name], others, root, f"{at}.{name}")
    for name in value.keys() & known.keys():
        found += faults(value[name], known[name], root, f"{at}.{name}")
    return found
