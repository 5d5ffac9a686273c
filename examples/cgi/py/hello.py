#!/usr/bin/env python3
import html
import os
import urllib.parse

query = urllib.parse.parse_qs(os.environ["QUERY_STRING"])
name = html.escape(query.get("name", ["World"])[0])
print("Content-Type: text/html; charset=utf-8\n")
print(f"<!doctype html><title>Hello</title><h1>Hello, {name}!</h1>")
