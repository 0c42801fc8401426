"""Connects a plugin to its world inside of a component."""

import json
import traceback

from componentize_py_types import Err
from wit_world.imports import panics


class Connected:
    """A plugin and the configuration it was given."""

    def __init__(self, plugin):
        self.plugin = plugin
        self.config = {}

    def setup(self):
        """Returns the class that exports `setup`."""
        connected = self

        class Setup:
            def configure(self, text):
                try:
                    given = json.loads(text) if text.strip() else {}
                    configure = getattr(connected.plugin, "configure", None)
                    prepared = configure(given) if configure else None
                    connected.config = given if prepared is None else prepared
                except Exception as error:
                    raise Err(str(error)) from error

        return Setup

    def call(self, name, *args, otherwise=None):
        """Calls a function of the plugin; what it raises is told to the host before the component ends itself."""
        return told(getattr(self.plugin, name, otherwise), *args, self.config)


def told(function, *args):
    """Calls a function; what it raises is told to the host."""
    try:
        return function(*args)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        panics.report(f"{type(error).__name__}: {error}", place)
        raise


def word(of):
    """Returns the name of an enum's case as the WIT writes it."""
    return of.name.lower().replace("_", "-")
