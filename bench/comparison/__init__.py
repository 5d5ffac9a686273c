"""Measures servers side by side: `compare.py` is the program, these are its rooms.

`scenarios` says what is asked and what must be answered, `processes` reads /proc, `load` runs the clients, `peers`
writes configurations, `servers` starts and ends one server, `crowd` holds connections beside, `rounds` and `collecting`
measure, `report` prints. Each imports only what is named before it.
"""
