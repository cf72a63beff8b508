"""Configuration: one YAML file, or the environment, read and checked whole at start.

`load.load()` is the door. Only this package reads the environment, and only `load` and `environment` in it. The file's
names are YAML's; where a value has a unit the attribute says it last (`connect` is `connect_s`, `usd` is `nanousd`).
"""
