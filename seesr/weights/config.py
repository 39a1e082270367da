"""Reads the config files of weights, which are JSON objects, without importing PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from seesr.errors import WeightsError

DIFFUSERS_FILE = "diffusion_pytorch_model"
"""Name of a network's weights without suffix, as diffusers writes them."""
PULL_HINT = "`seesr weights pull` fetches the published model"


def read_config(path: Path) -> dict[str, Any]:
    """The JSON object in `path`.

    Raises:
        WeightsError: the file is missing, cannot be read, or is not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} is missing; {PULL_HINT}.") from None
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path} is not a JSON file ({error}).") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path} does not hold a JSON object.")
    return config
