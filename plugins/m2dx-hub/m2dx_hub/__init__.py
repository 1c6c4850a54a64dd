"""Encoders of m2dx on the Hub: `m2dx push FOLDER hf://user/name`, and `hf://user/name@REVISION` for an encoder."""
