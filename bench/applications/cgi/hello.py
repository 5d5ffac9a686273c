#!/usr/bin/env python3
"""A CGI script as many are: a few modules of the standard library, a query, a page."""

import datetime
import html
import json
import os
import urllib.parse

query = urllib.parse.parse_qs(os.environ.get("QUERY_STRING", ""))
name = html.escape(query.get("name", ["World"])[0])
started = datetime.datetime(2026, 1, 1).isoformat()
print("Content-Type: application/json\n")
print(json.dumps({"greeting": f"Hello, {name}!", "since": started}), end="")
