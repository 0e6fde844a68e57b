"""Validates TOML texts by a JSON Schema: {"schema": ..., "texts": [...]} on stdin, the number of errors of each on stdout."""

import json
import sys
import tomllib

import jsonschema

task = json.load(sys.stdin)
validator = jsonschema.Draft7Validator(task["schema"])
validator.check_schema(task["schema"])
# Dates of TOML as text, which is how editors hand them over.
documents = [json.loads(json.dumps(tomllib.loads(text), default=str)) for text in task["texts"]]
found = [[error for error in validator.iter_errors(document)] for document in documents]
for errors in found:
    for error in errors:
        print(list(error.absolute_path), error.message[:200], file=sys.stderr)
json.dump([len(errors) for errors in found], sys.stdout)
