"""The pytest plugin by an earlier name, for ``-p`` and ``pytest_plugins``: `pytest_amigo_async`."""

pytest_plugins = ("pytest_amigo_async",)
