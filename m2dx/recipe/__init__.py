"""Recipes: the schema, YAML files with `file:line` in every error, overrides, and the JSON schema.

Nothing here imports torch, so that the command line starts fast; import from the modules.
"""
