"""The Modelfile, both ways: text to what a model is made of, and values to text that parses back to them.

Source: the Ollama API, "Modelfile".
"""

from runtime.errors import ModelfileInvalid
from runtime.modelfile.file import MAX_BYTES, Modelfile, parse, parse_bytes
from runtime.modelfile.parameters import LEGACY_PARAMETERS

__all__ = ["LEGACY_PARAMETERS", "MAX_BYTES", "Modelfile", "ModelfileInvalid", "parse", "parse_bytes"]
