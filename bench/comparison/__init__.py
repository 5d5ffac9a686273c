"""Measures servers side by side: `compare.py` is the program, these are its rooms.

`scenarios` says what is asked and what must be answered, `processes` reads /proc, `load` runs wrk, `servers` starts and
ends one server, `rounds` measures, `report` prints. Each imports only what is named before it.
"""
