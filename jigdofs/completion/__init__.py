"""Completion for shells: what the verbs take, read from their parsers, and the scripts made from it."""
