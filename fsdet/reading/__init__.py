"""The one door for YAML, JSON and JSON lines: whatever a file holds becomes plain values, or one line of error.

The line names file, line, rule and cure. Size, depth, aliases and the length of numbers are limited, so that
every file is read or refused within seconds. `error` is the class of the exception that a reader raises.
"""

from fsdet.reading.json_file import read_json
from fsdet.reading.json_lines import Row, numbers_of, read_json_lines, read_rows
from fsdet.reading.text import LARGEST_DATASET, exists, expand_user, read_text
from fsdet.reading.yaml_file import Document, parse_yaml, read_yaml

__all__ = [
    "LARGEST_DATASET",
    "Document",
    "Row",
    "exists",
    "expand_user",
    "numbers_of",
    "parse_yaml",
    "read_json",
    "read_json_lines",
    "read_rows",
    "read_text",
    "read_yaml",
]
