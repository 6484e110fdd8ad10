"""The reference codecs, and `create_model`, which builds them by name."""

from cfii.codecs.registry import CFIIModel, create_model, from_pretrained, list_models

__all__ = ["CFIIModel", "create_model", "from_pretrained", "list_models"]
