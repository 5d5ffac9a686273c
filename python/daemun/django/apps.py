"""``daemun.django`` in INSTALLED_APPS: what ``daemun check`` says of the project, in ``manage.py check`` too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core import checks

from . import rules

KINDS = {"error": checks.Error, "warning": checks.Warning, "note": checks.Info}


class DaemunConfig(AppConfig):  # type: ignore[misc, unused-ignore]
    """The application."""

    name = "daemun.django"
    label = "daemun"
    verbose_name = "daemun"

    def ready(self) -> None:
        """Register the checks."""
        checks.register(check, deploy=True)


def check(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Run the rules; not where single applications are asked for."""
    if app_configs is not None:
        return []
    found = rules.examine(rules.Project())["findings"]
    return [message(one) for one in found]


def message(found: dict[str, Any]) -> checks.CheckMessage:
    """As Django tells it."""
    kind = KINDS[rules.SEVERITIES[found["code"]]]
    place = found["file"] or ""
    if found["line"]:
        place += f":{found['line']}"
    text = found["message"] + (f" ({place})" if place else "")
    return kind(text, hint=found["mend"], id=f"daemun.{found['code']}")
